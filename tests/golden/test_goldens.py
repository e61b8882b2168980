"""Every `*.onnxtxt` here: run its RUN line in process and match its CHECK lines."""

from pathlib import Path

import pytest
from planish.tools.golden import Case, read_cases, run_case

CASES = [case for file in sorted(Path(__file__).parent.glob("*.onnxtxt")) for case in read_cases(file)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_golden(case: Case) -> None:
    complaint = run_case(case)
    assert not complaint, complaint

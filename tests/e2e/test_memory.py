"""Memory is bounded by single tensors, not by the model: `tools/bench/memory.py` in small."""

from __future__ import annotations

from pathlib import Path

import pytest
from planish.tools.bench.memory import make_model, measure

MIB = 1 << 20
TENSORS = 12
TENSOR = 32 * MIB


@pytest.fixture(scope="module")
def idle_mib(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Peak of the same run on a model of the same structure whose weights are next to nothing."""
    place = tmp_path_factory.mktemp("idle")
    return measure(make_model(place, TENSORS, 64 * 1024), place / "out", "-O1", "--no-compile")["peak_mib"]


def test_the_exact_pipeline_needs_at_most_three_of_the_largest_tensor(tmp_path: Path, idle_mib: float) -> None:
    model = make_model(tmp_path, TENSORS, TENSOR)
    peak = measure(model, tmp_path / "out", "-O1", "--no-compile")["peak_mib"]
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) > 0.9 * TENSORS * TENSOR
    assert peak - idle_mib <= 3 * TENSOR / MIB

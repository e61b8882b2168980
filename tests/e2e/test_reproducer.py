"""A dump is a reproducer: the text before a pass and the pass alone give the text after it, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from planish.ir.capture import capture
from planish.ir.text import load_text, print_model
from planish.passes.defaults import exact
from planish.passes.instruments import Dump
from planish.passes.manager import PassManager

ROOT = Path(__file__).parents[2]
SHARED = (ROOT / ".." / "shared" / "models").resolve()
MODELS = [ROOT / "examples" / "digits.onnx", SHARED / "yunet_n" / "model.onnx", SHARED / "nsnet2" / "model.onnx"]


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.parent.name)
def test_every_pass_of_a_pipeline_can_be_repeated_from_its_dump(path: Path, tmp_path: Path) -> None:
    if not path.exists():
        pytest.skip("the shared models are not beside the project")
    outcome = PassManager(exact(), instruments=[Dump(tmp_path)]).run(capture(path))
    texts = sorted(tmp_path.glob("*.onnxtxt"))
    assert len(texts) == len(outcome.records) + 1
    for record, before, after in zip(outcome.records, texts, texts[1:], strict=False):
        model = load_text(before)
        (again,) = PassManager(record.spec).run(model).records
        assert print_model(model) == after.read_text(), record.spec
        assert (again.changes, again.skips) == (record.changes, record.skips), record.spec

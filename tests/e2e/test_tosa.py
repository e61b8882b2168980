"""A second opinion on an integer network: Arm's TOSA reference model, where tosa-tools is installed."""

from pathlib import Path

import pytest
from planish.driver import optimize

pytest.importorskip("tosa_reference_model", reason="tosa-tools is not installed (it needs an environment of its own)")
pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed (extra: ethos-u)")

from planish.tools.bench.tosa_check import compare

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"


def test_the_reference_model_agrees_with_litert() -> None:
    passes = "fold-bn,synthesize-inputs,activation-ranges,quantize"
    row = compare(optimize(DIGITS, target="ethos-u55-128", passes=passes).model, samples=8)
    assert row["max_lsb"] <= 3 and row["same_decision"] == 1.0

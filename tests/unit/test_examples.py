"""The committed example is what its script says it is."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import onnx
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DIGITS = EXAMPLES / "digits.onnx"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_digits", EXAMPLES / "train_digits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_committed_digits_net_reads_at_least_97_percent_of_the_held_out_images(script: ModuleType) -> None:
    _, _, images, labels = script.split()
    assert script.accuracy(str(DIGITS), images, labels) >= 0.97


def test_the_digits_net_is_small_keeps_its_batch_norms_and_has_residual_adds() -> None:
    assert DIGITS.stat().st_size < 300_000
    model = onnx.load(DIGITS)
    onnx.checker.check_model(model, full_check=True)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["BatchNormalization"] == operators["Conv"] == 6
    assert operators["Add"] == 2
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert batch.dim_param == "batch"


def test_training_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
    results = []
    for name in ("first.onnx", "second.onnx"):
        options = ["--epochs", "1", "--output", str(tmp_path / name)]
        subprocess.run([sys.executable, str(EXAMPLES / "train_digits.py"), *options], check=True, capture_output=True)
        results.append((tmp_path / name).read_bytes())
    assert results[0] == results[1]

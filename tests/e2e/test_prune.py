"""Pruning on real networks, without data: the published bars that run in seconds, and its place in a pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from planish.ir.capture import capture
from planish.ir.cost import summary
from planish.ir.execute import execute
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.targets.registry import resolve

PACK = Path(__file__).resolve().parents[3] / "shared" / "models"
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"
needs_pack = pytest.mark.skipif(not PACK.exists(), reason="the pack of models is not beside the repository")
PREPARE = "lift-constants,fixpoint{steps=4}(fold-shapes,fold-constants,remove-no-ops,fold-bn,remove-unused)"


def pruned(path: Path, pipeline: str, target: str | None = None) -> tuple[ir.Model, ir.Model]:
    """The prepared model before and after a pipeline."""
    context = Context(target=resolve(target) if target else None)
    model = capture(path)
    PassManager(PREPARE).run(model, context)
    before = model.clone()
    PassManager(pipeline).run(model, context)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return before, model


def digits() -> tuple[np.ndarray, np.ndarray]:
    sklearn = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    data = sklearn.load_digits()
    return (data.images / 16).astype(np.float32)[:, None], data.target


def accuracy(model: ir.Model, x: np.ndarray, y: np.ndarray) -> float:
    name = str(model.graph.inputs[0].name)
    return float((next(iter(execute(model, {name: x}).values())).argmax(1) == y).mean())


@needs_pack
def test_lenet_loses_three_fifths_of_its_parameters() -> None:
    data = np.load(PACK / "data" / "mnist_test.npz")
    x, y = data["x"][:2000, None].astype(np.float32) / 255, data["y"][:2000]
    before, after = pruned(
        PACK / "lenet_mnist" / "model.onnx", 'synthesize-inputs{samples=128},prune{budget="parameters=-60%"}'
    )
    assert summary(after).parameters <= 0.4 * summary(before).parameters
    assert accuracy(before, x, y) - accuracy(after, x, y) <= 0.02


@needs_pack
def test_keyword_spotting_loses_a_fifth_of_its_multiplications() -> None:
    data = np.load(PACK / "data" / "kws01_mfcc.npz")
    x = ((data["x"].astype(np.float32) - data["zero_point"]) * data["scale"])[:, None].astype(np.float32)
    before, after = pruned(
        PACK / "kws_dscnn" / "model_bn.onnx", 'synthesize-inputs{samples=256},prune{budget="macs=-20%"}'
    )
    assert summary(after).macs <= 0.8 * summary(before).macs
    assert accuracy(before, x, data["y"]) - accuracy(after, x, data["y"]) <= 0.05


def test_channels_stay_multiples_of_what_the_target_wants() -> None:
    before, after = pruned(DIGITS, 'synthesize-inputs{samples=64},prune{budget="macs=-20%"}', "arm64/cortex-a76")
    assert summary(after).macs < 0.8 * summary(before).macs + 1
    alignment = resolve("arm64/cortex-a76").channel_alignment
    for old, new in zip(before.graph, after.graph, strict=True):
        if old.op_type == "Conv":
            was, now = (n.inputs[1].shape[0] for n in (old, new))
            assert now == was or now % alignment == 0


@pytest.mark.parametrize(
    "pipeline",
    [
        "synthesize-inputs{samples=64},prune{ratio=0.25 alignment=1},activation-ranges,quantize",
        "synthesize-inputs{samples=64},activation-ranges,quantize,prune{ratio=0.25 alignment=1 compensation=none}",
    ],
    ids=["prune first", "quantize first"],
)
def test_pruning_and_quantization_compose_in_both_orders(pipeline: str) -> None:
    before, after = pruned(DIGITS, pipeline, "arm64")
    assert summary(after).macs < 0.9 * summary(before).macs
    assert any(n.op_type == "QuantizeLinear" for n in after.graph)
    x, y = digits()
    assert np.isfinite(execute(after, {str(after.graph.inputs[0].name): x[:8]})[str(after.graph.outputs[0].name)]).all()
    if pipeline.endswith("quantize"):
        assert accuracy(after, x, y) > 0.95


def test_a_graph_module_comes_back_narrower_and_trainable() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import planish

    class Residual(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
            self.inner = torch.nn.Conv2d(8, 8, 3, padding=1)
            self.head = torch.nn.Linear(8, 4)

        def forward(self, x):  # type: ignore[no-untyped-def]
            x = torch.relu(self.stem(x))
            x = x + torch.relu(self.inner(x))
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    narrow = planish.fx_pass(Residual().eval(), (x,), "prune{ratio=0.5 criterion=l1 compensation=none alignment=1}")
    widths = sorted(p.shape[0] for p in narrow.parameters() if p.dim() == 4)
    assert widths == [4, 4]
    narrow(x).sum().backward()
    assert all(p.grad is not None for p in narrow.parameters() if p.dim() > 1)

"""The FX bridge, torch capture and torch.compile on real networks."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from planish.integrations import EagerFallback, fx_pass
from planish.ir.capture import capture
from planish.ir.execute import Session

torch = pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
bridge = pytest.importorskip("planish.ir.fx")

MODELS = Path(__file__).resolve().parents[2].parent / "shared" / "models"
FILES = sorted(str(path.relative_to(MODELS)) for path in MODELS.glob("*/model*.onnx"))
if not FILES:
    pytest.skip(f"no models in {MODELS}", allow_module_level=True)

# free dimensions by name; the others take the size of the batch
SIZES = {"seq": 7, "frames": 5, "height": 64, "width": 96, "s16": 24, "s82": 32, "sequence": 576}
# inputs that are no standard normal numbers
SPECIAL = {"sr": lambda shape: np.array(16000), "attention_mask": lambda shape: np.ones(shape, np.int64)}
# networks whose inputs are pictures of 0 … 255; on noise the scores of yunet vanish
PICTURES = ("yunet_n", "style_starry_night", "resnet8_cifar10")


def feeds(model: ir.Model, name: str, batch: int) -> dict[str, Any]:
    rng = np.random.default_rng(batch)
    made = {}
    for value in model.graph.inputs:
        assert value.name is not None and value.shape is not None
        shape = [dim if isinstance(dim, int) else SIZES.get(str(dim.value), batch) for dim in value.shape]
        if value.name in SPECIAL:
            made[value.name] = SPECIAL[value.name](shape)
        elif value.dtype == ir.DataType.INT64:
            made[value.name] = rng.integers(0, 1000, shape)
        elif name.split("/")[0] in PICTURES:
            made[value.name] = rng.uniform(0, 255, shape).astype(np.float32)
        else:
            made[value.name] = rng.standard_normal(shape, dtype=np.float32)
    return made


def assert_close(found: Any, expected: Any) -> None:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert np.abs(found - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1e-6)


@pytest.mark.parametrize("name", FILES)
def test_the_bridge_computes_what_onnx_runtime_computes_and_trains_every_weight(name: str) -> None:
    model = capture(MODELS / name)
    piece = bridge.to_fx(model)
    session = Session(model, threads=1)
    for batch in (1, 2):
        given = feeds(model, name, batch)
        results = piece.module(*(torch.from_numpy(np.asarray(given[n])) for n in piece.inputs))
        for output, found in zip(piece.outputs, results, strict=True):
            assert_close(found.detach().numpy(), session(given)[output])
    sum(result.float().square().mean() for result in results).backward()
    untouched = [n for n, parameter in piece.module.named_parameters() if parameter.grad is None]
    assert list(piece.module.parameters()) and not untouched


@pytest.mark.parametrize("name", ["resnet20_cifar10/model.onnx", "dtln_1/model.onnx"])
def test_weights_written_back_are_what_onnx_runtime_then_runs(name: str) -> None:
    model = capture(MODELS / name)
    piece = bridge.to_fx(model)
    assert piece.write_back() == []
    with torch.no_grad():
        for parameter in piece.module.parameters():
            parameter.mul_(1.01)
    assert len(piece.write_back()) == len(list(piece.module.parameters()))
    given = feeds(model, name, 1)
    results = piece.module(*(torch.from_numpy(given[n]) for n in piece.inputs))
    for output, found in zip(piece.outputs, results, strict=True):
        assert_close(found.detach().numpy(), Session(model, threads=1)(given)[output])


def test_a_residual_block_is_distilled_through_the_bridge() -> None:
    model = capture(MODELS / "resnet20_cifar10" / "model.onnx")
    nodes = list(model.graph)[2:6]  # the first block: Conv, Relu, Conv, Add
    assert [node.op_type for node in nodes] == ["Conv", "Relu", "Conv", "Add"]
    teacher, student = bridge.to_fx(model, nodes, trainable=False), bridge.to_fx(model, nodes)
    assert len(student.inputs) == len(student.outputs) == 1
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 16, 32, 32), dtype=np.float32))
    with torch.no_grad():
        for parameter in student.module.parameters():
            parameter.mul_(0.8)
        wanted = teacher.module(x)[0]
    optimizer = torch.optim.Adam(student.module.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        loss = (student.module(x)[0] - wanted).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 4


@pytest.fixture(scope="module")
def nets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nets", MODELS / "nets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TORCH = {"mobilenetv1_075": (3, 96, 96), "kws_dscnn": (1, 49, 10), "vit_mnist": (1, 28, 28), "imdn_x2": (3, 24, 32)}


@pytest.mark.parametrize("name", TORCH)
def test_a_captured_module_computes_what_torch_computes_at_any_batch(name: str, nets: ModuleType) -> None:
    module = nets.build(name).train()
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((3, *TORCH[name]), dtype=np.float32))
    model = capture(module, x[:1], dynamic_shapes={"x": {0: "batch"}})
    norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert sum(node.op_type == "BatchNormalization" for node in model.graph) == len(norms)
    with torch.no_grad():
        expected = module.eval()(x).numpy()
    (found,) = Session(model, threads=1)({"x": x.numpy()}).values()
    assert_close(found, expected)


def test_torch_compile_and_fx_pass_on_resnet20_with_its_batch_norms(nets: ModuleType) -> None:
    module = nets.build("resnet20_cifar10")
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32))
    torch._dynamo.reset()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", EagerFallback)
        expected = module(x).numpy()
        assert_close(torch.compile(module, backend="planish")(x).numpy(), expected)
        improved = fx_pass(torch.fx.symbolic_trace(module), x)
        assert_close(improved(x).numpy(), expected)
    assert not [node for node in improved.graph.nodes if "batch_norm" in str(node.target)]

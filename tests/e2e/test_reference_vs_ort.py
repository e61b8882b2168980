"""Real networks at int8: the numpy reference against ONNX Runtime, by layer and whole.

Most are quantized by ONNX Runtime's own tool, so that what is pinned is the reading of standard Q/DQ and not agreement
with ourselves; two come from the default int8 pipeline.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir.execute import Session
from planish.ir.integer import FloatNode, IntegerOp, Step, plan
from planish.ir.reference import Reference, execute_step
from planish.ir.shapes import fix_dimensions, infer
from planish.passes.context import Context
from planish.passes.defaults import exact, int8
from planish.passes.manager import PassManager
from planish.targets.registry import resolve

MODELS = Path(__file__).resolve().parents[2].parent / "shared" / "models"
pytestmark = pytest.mark.skipif(not (MODELS / "data").exists(), reason="no pack of models beside the project")

Array = np.ndarray
COUNT = 96


def _data(name: str) -> dict[str, Array]:
    with np.load(MODELS / "data" / f"{name}.npz") as file:
        return dict(file)


def _cifar() -> Array:
    return _data("cifar10_test_lossless")["x"][:COUNT].transpose(0, 3, 1, 2).astype(np.float32)


def _cifar_normalised() -> Array:
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32).reshape(2, 1, 3, 1, 1)
    return (_cifar() / np.float32(255) - mean) / std


def _keywords() -> Array:
    data = _data("kws01_mfcc")
    scaled: Array = (data["x"][:COUNT].astype(np.float32) - data["zero_point"]) * data["scale"]
    return scaled[:, None].astype(np.float32)


def _digits() -> Array:
    return _data("mnist_test")["x"][:COUNT, None].astype(np.float32) / np.float32(255)


def _digits_normalised() -> Array:
    return (_digits() - np.float32(0.1307)) / np.float32(0.3081)


SAMPLES: dict[str, Callable[[], Array]] = {
    "resnet20_cifar10": _cifar_normalised,
    "resnet8_cifar10": _cifar,
    "kws_dscnn": _keywords,
    "lenet_mnist": _digits,
    "vit_mnist": _digits_normalised,
}
RUNS = [(name, kind) for name in SAMPLES for kind in ("QInt8", "QUInt8") if (name, kind) != ("vit_mnist", "QInt8")]
RUNS += [("resnet20_cifar10", "arm64"), ("kws_dscnn", "host")]


@dataclass
class Quantized:
    """A quantized network, its plan for a batch, and what ONNX Runtime computes for every integer value of it."""

    model: ir.Model
    steps: list[Step]
    feeds: dict[str, Array]
    values: dict[str, Array]


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def quantized(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Quantized]]:
    name, kind = request.param
    samples = SAMPLES[name]()
    source = MODELS / name / "model.onnx"
    if kind in ("arm64", "host"):
        model = ir.load(source)
        PassManager([*exact(), *int8()]).run(model, Context(target=resolve(kind)))
    else:
        path = tmp_path_factory.mktemp("quantized") / "model.onnx"
        _quantize(source, path, samples[:16], kind)
        model = ir.load(path)
    feeds = {str(model.graph.inputs[0].name): samples}
    steps = _planned(model, samples.shape)
    made = {v.name for node in model.graph for v in node.outputs}
    wanted = {n for s in steps if isinstance(s, IntegerOp) for n in (*s.outputs, *(o.value for o in s.inputs))}
    values = Session(model, sorted(wanted & made), threads=1)(feeds) | feeds
    yield name, Quantized(model, steps, feeds, values)


def _planned(model: ir.Model, shape: tuple[int, ...]) -> list[Step]:
    fixed = model.clone()
    fix_dimensions(fixed, {str(fixed.graph.inputs[0].name): shape})
    infer(fixed)
    return plan(fixed)


def _quantize(source: Path, target: Path, samples: Array, kind: str) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{str(ir.load(source).graph.inputs[0].name): samples}]

        def get_next(self) -> dict[str, Array] | None:
            return self.left.pop() if self.left else None

    logging.disable(logging.WARNING)
    try:
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType[kind],
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)


def test_everything_that_can_be_is_read_as_integers(quantized: tuple[str, Quantized]) -> None:
    name, net = quantized
    left = [s for s in net.steps if isinstance(s, FloatNode)]
    if name != "vit_mnist":
        assert not left
    for step in left:  # where the quantizer put no Q/DQ, or around Softmax and LayerNormalization
        assert step.reason in (
            "no input is quantized",
            "the result stays float",
            f"{step.node.op_type} has no integer form",
        )


def test_each_layer_is_within_one_level_on_equal_integers(quantized: tuple[str, Quantized]) -> None:
    _, net = quantized
    compared = 0
    for step in net.steps:
        if isinstance(step, FloatNode) or not _is_known(step, net.values):
            continue
        ours = execute_step(step, net.values)
        for name in step.outputs:
            theirs = net.values[name]
            assert ours[name].shape == theirs.shape and ours[name].dtype == theirs.dtype
            if step.encoding is None:
                np.testing.assert_allclose(ours[name], theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
            else:
                assert np.abs(ours[name].astype(int) - theirs.astype(int)).max() <= 1, (step.kind, name)
            compared += 1
    assert compared >= 0.8 * sum(isinstance(s, IntegerOp) for s in net.steps)


def _is_known(step: IntegerOp, values: dict[str, Array]) -> bool:
    reads = all(o.constant is not None or o.value in values for o in step.inputs)
    return reads and all(name in values for name in step.outputs)


def test_decisions_agree(quantized: tuple[str, Quantized]) -> None:
    _, net = quantized
    output = str(net.model.graph.outputs[0].name)
    ours = Reference(net.model)(net.feeds)[output]
    theirs = Session(net.model, threads=1)(net.feeds)[output]
    agreement = (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()
    assert agreement >= 0.97  # two of 96 pictures may lie on the border


def test_pictures_of_224_run_in_a_depthwise_network(tmp_path: Path) -> None:
    from PIL import Image  # the pictures are stored as JPEG

    data = _data("imagenet_sample_224")
    starts = data["offset"]
    pictures = [
        np.asarray(Image.open(_stream(data["jpeg"][starts[i] : starts[i + 1]])).convert("RGB")) for i in range(4)
    ]
    x = np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
    _quantize(MODELS / "mobilenetv2_tf" / "model.onnx", tmp_path / "q.onnx", x, "QUInt8")
    model = ir.load(tmp_path / "q.onnx")
    assert not [s for s in _planned(model, x.shape) if isinstance(s, FloatNode)]
    feeds = {"input": x}
    ours, theirs = Reference(model)(feeds), Session(model, threads=1)(feeds)
    for name, logits in theirs.items():
        np.testing.assert_array_equal(ours[name].argmax(axis=1), logits.argmax(axis=1))


def _stream(data: Array) -> object:
    import io

    return io.BytesIO(data.tobytes())

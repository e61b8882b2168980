"""Real models compiled for the machine the tests run on: float agrees with ONNX Runtime, int8 equals the reference."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import planish
import pytest
from planish.backends.tvm.compile import compile_model
from planish.backends.tvm.load import CompiledModel
from planish.ir.execute import execute
from planish.ir.reference import run
from planish.ir.shapes import fix_dimensions
from planish.targets.registry import resolve

ROOT = Path(__file__).parents[2]
MODELS = ROOT.parent / "shared" / "models"

# model -> shapes of its inputs
FLOAT = {
    "digits": {"image": (1, 1, 8, 8)},
    "lenet_mnist": {"input": (1, 1, 28, 28)},
    "kws_dscnn": {"input": (1, 1, 49, 10)},
    "resnet20_cifar10": {"input": (1, 3, 32, 32)},
    "vit_mnist": {"input": (1, 1, 28, 28)},
    "imdn_x2": {"input": (1, 3, 24, 20)},
    "yunet_n": {"input": (1, 3, 64, 96)},
    "all_minilm_l6_v2": {"input_ids": (1, 12), "attention_mask": (1, 12)},
}


def _model(name: str) -> Path:
    path = ROOT / "examples" / "digits.onnx" if name == "digits" else MODELS / name / "model.onnx"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def _feeds(model: ir.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds = {}
    for value in model.graph.inputs:
        assert value.dtype is not None
        shape = [d if isinstance(d, int) else 1 for d in value.shape or ()]
        integer = value.dtype.is_integer()
        array = rng.integers(1, 2, shape) if integer else rng.normal(0.3, 0.7, shape)
        feeds[str(value.name)] = array.astype(value.dtype.numpy())
    return feeds


@pytest.mark.parametrize("name", FLOAT)
def test_float_models_agree_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    model = planish.capture(_model(name))
    fix_dimensions(model, FLOAT[name])
    compiled = compile_model(model, resolve("host"), tmp_path)
    feeds = _feeds(model)
    got = CompiledModel(tmp_path / "model.so")(**feeds)
    for output, want in execute(model, feeds).items():
        # 1e-6: a sigmoid near 0 is the difference of numbers near 1, where float32 itself is that coarse.
        assert np.abs(got[output] - want).max() <= 1e-4 * np.abs(want).max() + 1e-6
    assert {place.dtype for place in compiled.placement} == {"float32"}
    assert all(place.reason for place in compiled.placement), "what is float says why"


@pytest.mark.parametrize("name", ["digits", "kws_dscnn", "resnet20_cifar10"])
def test_int8_models_equal_the_reference(name: str, tmp_path: Path) -> None:
    planish.optimize(_model(name), target="host", output=tmp_path / "out")
    model = planish.capture(tmp_path / "out" / "model.onnx")
    feeds = _feeds(model)
    compiled = CompiledModel(tmp_path / "out" / "model.so")
    for output, want in run(model, feeds).items():
        np.testing.assert_array_equal(compiled(**feeds)[output], want)
    files = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert files["model.weights"] < 0.4 * _model(name).stat().st_size, "the weights are stored as int8"


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    model = planish.capture(_model("digits"))
    fix_dimensions(model, FLOAT["digits"])
    first = compile_model(model, resolve("host"), tmp_path / "a").files
    second = compile_model(model, resolve("host"), tmp_path / "b").files
    assert first == second


def test_two_threads_share_one_library(tmp_path: Path) -> None:
    """Re-entrant: each caller brings an arena, nothing else is written."""
    from concurrent.futures import ThreadPoolExecutor

    model = planish.capture(_model("digits"))
    fix_dimensions(model, FLOAT["digits"])
    compile_model(model, resolve("host"), tmp_path)
    inputs = np.random.default_rng(0).normal(size=(64, 1, 1, 8, 8)).astype(np.float32)
    (output,) = (str(value.name) for value in model.graph.outputs)

    def classify(images: np.ndarray) -> list[np.ndarray]:
        own = CompiledModel(tmp_path / "model.so")
        return [own(image=image)[output] for image in images]

    alone = classify(inputs)
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(classify, (inputs, inputs[::-1])))
    np.testing.assert_array_equal(halves[0], alone)
    np.testing.assert_array_equal(halves[1][::-1], alone)


def test_teams_of_threads_run_side_by_side_and_alone(tmp_path: Path) -> None:
    """A library for two threads: two teams at once, one after a pause in which its members went to sleep."""
    from concurrent.futures import ThreadPoolExecutor

    model = planish.capture(_model("resnet20_cifar10"))
    fix_dimensions(model, FLOAT["resnet20_cifar10"])
    compile_model(model, resolve("host"), tmp_path / "one")
    compile_model(model, replace(resolve("host"), threads=2), tmp_path / "two")
    inputs = np.random.default_rng(0).normal(size=(12, 1, 3, 32, 32)).astype(np.float32)
    name = str(model.graph.inputs[0].name)

    def classify(directory: Path) -> list[np.ndarray]:
        own = CompiledModel(directory / "model.so")
        found = []
        for i, image in enumerate(inputs):
            if i == len(inputs) // 2:
                time.sleep(0.01)
            found.append(next(iter(own(**{name: image}).values())).copy())
        return found

    alone = classify(tmp_path / "one")
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(classify, [tmp_path / "two"] * 2):
            np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize(("indices", "axis"), [(-1, -1), ([-1, 0], -1), ([[1, -2]], -2), (-1, 0)])
def test_negative_indices_count_from_the_end_of_a_negative_axis(indices: object, axis: int, tmp_path: Path) -> None:
    x, index = np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.array(indices)
    want = np.take(x, index, axis)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gather", ["x", "i"], ["y"], axis=axis)],
        "gather",
        [info("x", onnx.TensorProto.FLOAT, x.shape), info("i", onnx.TensorProto.INT64, index.shape)],
        [info("y", onnx.TensorProto.FLOAT, want.shape)],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    compile_model(planish.capture(proto), resolve("host"), tmp_path)
    np.testing.assert_array_equal(CompiledModel(tmp_path / "model.so")(x=x, i=index)["y"], want)


def test_a_library_written_anew_at_the_same_path_is_the_one_that_runs(tmp_path: Path) -> None:
    results = []
    for factor in (2.0, 3.0):
        text = f'<ir_version: 9, opset_import: ["" : 20]> g (float[1,4] x) => (float[1,4] y) <float w = {{{factor}}}> '
        planish.optimize(onnx.parser.parse_model(text + "{ y = Mul(x, w) }"), output=tmp_path / "out", level=0)
        results.append(CompiledModel(tmp_path / "out" / "model.so")(x=np.ones((1, 4), np.float32))["y"][0, 0])
    assert results == [2.0, 3.0]

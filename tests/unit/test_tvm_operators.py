"""Every kind of integer operation, compiled for several instruction sets, equals the numpy reference to the bit."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper as h
from planish.backends.tvm.compile import compile_model
from planish.backends.tvm.load import CompiledModel
from planish.ir.integer import FloatNode, plan
from planish.ir.reference import run
from planish.ir.shapes import infer
from planish.targets.registry import resolve

from ..arm64_emulation import emulated
from ..quantized_graph import normal_feeds
from ..x86_targets import avx2


@dataclass(frozen=True)
class Case:
    """One operator: its ONNX name, operand shapes, attributes, and constants (arrays: int8 means quantized weights)."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    attributes: dict[str, Any]
    constants: tuple[np.ndarray, ...] = ()


def _conv(
    rng: np.random.Generator, filters: int, shape: tuple[int, ...], kernel: tuple[int, ...], **attributes: Any
) -> Case:
    depth = shape[1] // attributes.get("group", 1)
    weight = rng.integers(-127, 128, (filters, depth, *kernel)).astype(np.int8)
    return Case("Conv", (shape,), attributes, (weight,))


def _cases() -> Iterator[Case]:
    rng = np.random.default_rng(3)
    yield _conv(rng, 16, (1, 16, 8, 8), (3, 3), pads=[1, 1, 1, 1])
    yield _conv(rng, 32, (1, 3, 13, 11), (3, 3), pads=[1, 1, 1, 1], strides=[2, 2])  # channels and width do not divide
    yield _conv(rng, 10, (1, 5, 7, 7), (3, 2), pads=[2, 0, 1, 1])
    yield _conv(rng, 24, (2, 8, 6, 5), (1, 1))
    yield _conv(rng, 12, (2, 13, 5, 6), (3, 3), pads=[1, 1, 1, 1], strides=[2, 1])  # pairs of positions, odd depth
    yield _conv(rng, 16, (1, 4, 9, 9), (1, 1), strides=[2, 2])
    yield _conv(rng, 16, (1, 8, 12, 12), (3, 3), dilations=[2, 3], pads=[2, 3, 2, 3])
    yield _conv(rng, 16, (1, 16, 9, 10), (3, 3), group=16, pads=[1, 1, 1, 1])
    yield _conv(rng, 12, (2, 12, 7, 5), (5, 3), group=12, pads=[2, 1, 2, 1], strides=[2, 1])
    yield _conv(rng, 6, (1, 3, 7, 7), (3, 3), group=3)  # channel multiplier 2
    yield _conv(rng, 8, (1, 6, 7, 7), (3, 3), group=2, pads=[0, 1, 0, 1])
    yield _conv(rng, 6, (1, 4, 20), (3,), pads=[1, 1], strides=[2])
    yield _conv(rng, 4, (1, 2, 5, 6, 4), (2, 3, 2))
    yield Case("MatMul", ((5, 12),), {}, (rng.integers(-127, 128, (12, 16)).astype(np.int8),))
    yield Case("MatMul", ((2, 3, 7),), {}, (rng.integers(-127, 128, (7, 10)).astype(np.int8),))
    yield Case("MatMul", ((2, 3, 4, 8), (2, 3, 8, 5)), {})
    yield Case("MatMul", ((1, 2, 18, 32), (1, 2, 32, 20)), {})
    yield Case("MatMul", ((17, 9), (3, 9, 33)), {})
    yield Case("MatMul", ((7,), (7, 4)), {})
    yield Case("Add", ((1, 8, 5, 6), (1, 8, 5, 6)), {})
    yield Case("Add", ((2, 3, 5, 4), (3, 1, 1)), {})
    yield Case("Add", ((4, 6),), {}, (rng.normal(size=(1, 6)).astype(np.float32),))
    yield Case("Sub", ((4, 6), (4, 6)), {})
    yield Case("Mul", ((1, 8, 5, 4), (1, 8, 1, 1)), {})
    yield Case("Mul", ((3, 4, 5),), {}, (rng.normal(size=(4, 1)).astype(np.float32),))
    yield Case("Relu", ((1, 4, 5, 5),), {})
    yield Case("Sigmoid", ((7, 9),), {})
    yield Case("HardSwish", ((1, 8, 3, 3),), {})
    yield Case("MaxPool", ((1, 6, 9, 8),), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]})
    yield Case("AveragePool", ((1, 6, 9, 8),), {"kernel_shape": [2, 3], "strides": [2, 1]})
    yield Case("AveragePool", ((1, 16, 8, 8),), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})
    yield Case("GlobalAveragePool", ((2, 16, 5, 7),), {})
    yield Case("GlobalMaxPool", ((2, 5, 5, 7),), {})
    yield Case("ReduceMean", ((14, 3, 4),), {"keepdims": 0}, (np.array([1, 2], np.int64),))
    yield Case("Concat", ((1, 3, 4, 4), (1, 5, 4, 4)), {"axis": 1})
    yield Case("Pad", ((1, 3, 4, 5),), {}, (np.array([0, 1, 2, 0, 0, 2, 1, 3], np.int64),))
    yield Case("Pad", ((1, 3, 6, 5),), {"mode": "reflect"}, (np.array([0, 0, 2, 1, 0, 0, 1, 2], np.int64),))
    yield Case("Slice", ((1, 6, 9, 8),), {}, tuple(np.array(v, np.int64) for v in ([1, 8], [5, 0], [1, 2], [2, -3])))
    yield Case("Gather", ((5, 6),), {"axis": 1}, (np.array([[3, 0], [5, 1]], np.int64),))
    yield Case("Transpose", ((1, 3, 4, 5),), {"perm": [0, 2, 3, 1]})
    yield Case("Transpose", ((2, 3, 4),), {"perm": [2, 0, 1]})
    yield Case("Reshape", ((1, 6, 4, 5),), {}, (np.array([1, 120], np.int64),))
    yield Case("Reshape", ((1, 12, 10),), {}, (np.array([1, 4, 6, 5], np.int64),))
    yield Case("DepthToSpace", ((1, 8, 3, 4),), {"blocksize": 2, "mode": "CRD"})
    yield Case("DepthToSpace", ((1, 8, 3, 4),), {"blocksize": 2})
    yield Case("SpaceToDepth", ((1, 3, 4, 6),), {"blocksize": 2})
    yield Case("Split", ((1, 8, 3, 3),), {"axis": 1}, (np.array([3, 5], np.int64),))


def _model(activation: type[np.generic]) -> ir.Model:
    """All cases side by side: input → Q → DQ → operator → Q → DQ → output, each value with an encoding of its own."""
    rng = np.random.default_rng(0)
    nodes, inputs, outputs, constants = [], [], [], []

    def constant(name: str, array: Any) -> str:
        constants.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def encoded(source: str, name: str, scale: float) -> str:
        info = np.iinfo(activation)
        scale = constant(f"{name}_s", np.float32(scale * rng.uniform(0.8, 1.2)))
        zero = constant(f"{name}_z", activation(rng.integers(info.min + 90, info.max - 90)))
        nodes.append(h.make_node("QuantizeLinear", [source, scale, zero], [f"{name}_q"]))
        nodes.append(h.make_node("DequantizeLinear", [f"{name}_q", scale, zero], [name]))
        return name

    for k, case in enumerate(_cases()):
        reads = []
        for j, shape in enumerate(case.shapes):
            inputs.append(h.make_tensor_value_info(f"x{k}_{j}", onnx.TensorProto.FLOAT, shape))
            reads.append(encoded(f"x{k}_{j}", f"a{k}_{j}", 0.03))
        for j, array in enumerate(case.constants):
            name = constant(f"c{k}_{j}", array)
            if array.dtype == np.int8:
                axis = 0 if case.op == "Conv" else array.ndim - 1
                scale = rng.uniform(0.005, 0.02, array.shape[axis]).astype(np.float32)
                zero = constant(f"w{k}_z", np.zeros(scale.shape, np.int8))
                nodes.append(
                    h.make_node("DequantizeLinear", [name, constant(f"w{k}_s", scale), zero], [f"w{k}"], axis=axis)
                )
                name = f"w{k}"
            reads.append(name)
        results = [f"y{k}_{j}" for j in range(2 if case.op == "Split" else 1)]
        nodes.append(h.make_node(case.op, reads, results, name=f"case{k}", **case.attributes))
        for result in results:
            spread = 0.2 if case.op in ("Conv", "MatMul") else 0.03
            outputs.append(h.make_empty_tensor_value_info(encoded(result, f"{result}_out", spread)))
    graph = h.make_graph(nodes, "cases", inputs, outputs, constants)
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9)
    model = ir.from_proto(proto)
    infer(model)
    return model


def _assert_equal(model: ir.Model, got: dict[str, np.ndarray], feeds: dict[str, np.ndarray]) -> None:
    names = [case.op for case in _cases()]
    for name, want in run(model, feeds).items():
        op = names[int(name[1:].partition("_")[0])]
        assert np.unique(want).size > 3, f"{op} ({name}) is saturated: the comparison would say nothing"
        np.testing.assert_array_equal(got[name], want, err_msg=f"{op} ({name})")


def test_the_cases_are_all_integer_operations() -> None:
    steps = plan(_model(np.int8))
    assert not [step.node.op_type for step in steps if isinstance(step, FloatNode)]


@pytest.mark.parametrize("activation", [np.uint8, np.int8])
def test_host_equals_the_reference(activation: type[np.generic], tmp_path: Path) -> None:
    model = _model(activation)
    compile_model(model, resolve("host"), tmp_path)
    feeds = normal_feeds(model, 0.8)
    _assert_equal(model, CompiledModel(tmp_path / "model.so")(**feeds), feeds)


_HOST = resolve("host")
_LESS = {
    "plain": replace(_HOST, instruction=None),
    "avx2": avx2(),
    "no tiles": replace(_HOST, features=frozenset(f for f in _HOST.features if not f.startswith("amx"))),
}


@pytest.mark.parametrize("name", _LESS)
def test_a_host_with_less_equals_the_reference(name: str, tmp_path: Path) -> None:
    """Plain vectors, AVX2 and VNNI on a machine that may have more."""
    if name != "plain" and platform.machine() != "x86_64":
        pytest.skip("an x86-64 host runs this code")
    model = _model(np.int8)
    compile_model(model, _LESS[name], tmp_path)
    feeds = normal_feeds(model, 0.8)
    _assert_equal(model, CompiledModel(tmp_path / "model.so")(**feeds), feeds)


@pytest.mark.parametrize("scale", [1 / 255, 0.0234375, 0.1, 1.7320508, 1.9999999, 2.0**-70])
def test_quantizing_rounds_as_division_does(scale: float, tmp_path: Path) -> None:
    """Where a quotient is a hair from the middle of two levels, and beyond the levels."""
    s = np.float32(scale)
    middles = (np.arange(-140, 141, dtype=np.float32) + np.float32(0.5)) * s
    near = [np.nextafter(middles, np.float32(to), dtype=np.float32) for to in (-np.inf, np.inf)]
    ends = np.array([0, -0.0, np.inf, -np.inf, 3e38, -3e38, 1e-45], np.float32)
    x = np.concatenate([middles, *near, ends]).astype(np.float32)
    nodes = [
        h.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        h.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    constants = [onnx.numpy_helper.from_array(a, n) for a, n in ((np.asarray(s), "s"), (np.array(7, np.int8), "z"))]
    graph = h.make_graph(nodes, "levels", [h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
                         [h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, x.shape)], constants)  # fmt: skip
    model = ir.from_proto(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9))
    compile_model(model, resolve("host"), tmp_path)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(CompiledModel(tmp_path / "model.so")(x=x)["y"], run(model, {"x": x})["y"])


def test_threads_compute_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of any size are shared out, among a number of threads that divides nothing."""
    from planish.backends.tvm import parallel

    monkeypatch.setattr(parallel, "pays", lambda *_: True)
    monkeypatch.setattr(parallel, "SMALLEST", 1)
    monkeypatch.setattr(parallel, "_SHARES", 1)
    model = _model(np.uint8)
    compile_model(model, replace(resolve("host"), threads=3), tmp_path)
    source = (tmp_path / "model.c").read_text()
    assert source.count("range.start") > source.count("take(&walk, 1,"), "most calls are shared"
    feeds = normal_feeds(model, 0.8)
    compiled = CompiledModel(tmp_path / "model.so")
    for _ in range(3):
        _assert_equal(model, compiled(**feeds), feeds)


@pytest.mark.usefixtures("cuda_emulation")
def test_cuda_kernels_equal_the_reference_in_emulation(tmp_path: Path) -> None:
    """Values only: the generated kernels as host code, tensor cores and dp4a emulated; no GPU, nothing measured."""
    from planish.backends.cuda import compile as cuda
    from planish.backends.cuda.emulator import emulate

    model = _model(np.int8)
    cuda.compile_model(model, resolve("cuda/sm_80"), tmp_path)
    feeds = normal_feeds(model, 0.8)
    _assert_equal(model, emulate(tmp_path, feeds), feeds)


@pytest.mark.parametrize("cpu", ["cortex-a53", "neoverse-n1", "neoverse-v1"])
def test_arm64_equals_the_reference_under_qemu(cpu: str, tmp_path: Path) -> None:
    model = _model(np.int8)
    feeds = normal_feeds(model, 0.8)
    _assert_equal(model, emulated(model, cpu, feeds, tmp_path), feeds)

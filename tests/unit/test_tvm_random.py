"""Convolutions of random shapes, strides, pads, dilations, groups and zero points equal the reference to the bit."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper as h
from planish.backends.tvm import parallel
from planish.backends.tvm.compile import compile_model
from planish.backends.tvm.load import CompiledModel
from planish.ir.integer import FloatNode, plan
from planish.ir.reference import run
from planish.ir.shapes import infer
from planish.targets.registry import resolve


@dataclass(frozen=True)
class Conv:
    """One convolution; `group`: "one", "two" halves, or "depthwise" (then filters are a multiple of the channels).

    A number is the number of groups, each with so many channels and filters.
    """

    group: str | int
    channels: int
    filters: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    zero: int


def _pair(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


_CONVS = st.builds(
    Conv,
    group=st.sampled_from(["one", "one", "one", "two", "depthwise"]),
    channels=st.one_of(st.integers(1, 20), st.sampled_from([32, 64, 96])),
    filters=st.one_of(st.integers(1, 20), st.sampled_from([16, 32, 48])),
    size=_pair(5, 24),
    kernel=_pair(1, 3),
    strides=_pair(1, 3),
    dilations=_pair(1, 2),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    zero=st.integers(0, 255),
)


def _model(convs: list[Conv], activation: type[np.generic]) -> ir.Model:
    """The convolutions side by side, each between quantized values of its own."""
    rng = np.random.default_rng(0)
    nodes, inputs, outputs, constants = [], [], [], []

    def constant(name: str, array: object) -> str:
        constants.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def encoded(source: str, name: str, scale: float, zero: int) -> str:
        both = [constant(f"{name}_s", np.float32(scale)), constant(f"{name}_z", activation(zero))]
        nodes.append(h.make_node("QuantizeLinear", [source, *both], [f"{name}_q"]))
        nodes.append(h.make_node("DequantizeLinear", [f"{name}_q", *both], [name]))
        return name

    for k, conv in enumerate(convs):
        copies = conv.group if isinstance(conv.group, int) else {"one": 1, "two": 2, "depthwise": 1}[conv.group]
        group = conv.channels if conv.group == "depthwise" else copies
        channels, filters = conv.channels * copies, conv.filters * copies
        filters = channels * (1 + conv.filters % 2) if conv.group == "depthwise" else filters
        shape = (filters, channels // group, *conv.kernel)
        zero = conv.zero + np.iinfo(activation).min
        inputs.append(h.make_tensor_value_info(f"x{k}", onnx.TensorProto.FLOAT, (1, channels, *conv.size)))
        x = encoded(f"x{k}", f"a{k}", 0.02, zero)
        w = constant(f"w{k}", rng.integers(-127, 128, shape).astype(np.int8))
        scale = constant(f"w{k}_s", rng.uniform(0.005, 0.02, filters).astype(np.float32))
        nodes.append(h.make_node("DequantizeLinear", [w, scale, constant(f"w{k}_z", np.zeros(filters, np.int8))],
                                 [f"d{k}"], axis=0))  # fmt: skip
        nodes.append(h.make_node("Conv", [x, f"d{k}"], [f"c{k}"], group=group, strides=conv.strides,
                                 dilations=conv.dilations, pads=conv.pads))  # fmt: skip
        outputs.append(h.make_empty_tensor_value_info(encoded(f"c{k}", f"y{k}", 0.2, zero)))
    graph = h.make_graph(nodes, "convolutions", inputs, outputs, constants)
    model: ir.Model = ir.from_proto(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9))
    infer(model)
    return model


@pytest.mark.parametrize("activation, threads", [(np.uint8, 1), (np.int8, 2)])
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(convs=st.lists(_CONVS, min_size=12, max_size=12))
def test_random_convolutions_equal_the_reference(activation: type[np.generic], threads: int, convs: list[Conv]) -> None:
    model = _model(convs, activation)
    assert not [step for step in plan(model) if isinstance(step, FloatNode)]
    rng = np.random.default_rng(1)
    feeds = {str(v.name): rng.normal(0, 1.5, tuple(v.shape)).astype(np.float32) for v in model.graph.inputs}  # type: ignore[arg-type]
    # threads share loops here however little they gain by it
    with tempfile.TemporaryDirectory() as directory, mock.patch.object(parallel, "pays", lambda *_: True):
        compile_model(model, replace(resolve("host"), threads=threads), Path(directory))
        got = CompiledModel(Path(directory) / "model.so")(**feeds)
    for k, (name, want) in enumerate(run(model, feeds).items()):
        np.testing.assert_array_equal(got[name], want, err_msg=str(convs[k]))


def test_sums_far_beyond_the_levels_saturate(tmp_path: Path) -> None:
    model = _model([Conv("one", 64, 32, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 37)], np.uint8)
    scale = model.graph.initializers["y0_s"]
    scale.const_value = ir.tensor(np.float32(1e-9), name="y0_s")  # a level is much less than the unit of the sums
    compile_model(model, resolve("host"), tmp_path)
    feeds = {"x0": np.random.default_rng(1).normal(0, 1.5, (1, 64, 8, 8)).astype(np.float32)}
    got = CompiledModel(tmp_path / "model.so")(**feeds)
    for name, want in run(model, feeds).items():
        assert len(np.unique(want)) == 2, "both ends"
        np.testing.assert_array_equal(got[name], want)


def test_a_model_too_small_for_two_threads_runs_on_one(tmp_path: Path) -> None:
    model = _model([Conv("one", 16, 16, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 100)], np.uint8)
    compiled = compile_model(model, replace(resolve("host"), threads=2), tmp_path)
    assert "one thread runs the model: it is too small to gain from more" in compiled.notes
    assert b"#define MODEL_THREADS 1\n" in compiled.files["model.h"]
    feeds = {str(v.name): np.ones(tuple(v.shape), np.float32) for v in model.graph.inputs}  # type: ignore[arg-type]
    got = CompiledModel(tmp_path / "model.so")(**feeds)
    for name, want in run(model, feeds).items():
        np.testing.assert_array_equal(got[name], want)

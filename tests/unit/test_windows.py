"""Pads, sizes and counts of pooling windows, drawn at random, against ONNX Runtime on the same integers."""

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from planish.errors import ModelError
from planish.ir.execute import execute
from planish.ir.integer import FloatNode, plan
from planish.ir.reference import run
from planish.ir.shapes import infer


@st.composite
def pools(draw: st.DrawFn) -> tuple[str, list[int], dict[str, object]]:
    op = draw(st.sampled_from(["AveragePool", "MaxPool"]))
    rank = draw(st.integers(1, 3))
    several = lambda low, high, n=rank: draw(st.lists(st.integers(low, high), min_size=n, max_size=n))  # noqa: E731
    attributes: dict[str, object] = {"kernel_shape": several(1, 3), "strides": several(1, 3)}
    attributes["ceil_mode"] = draw(st.integers(0, 1))
    padding = draw(st.sampled_from(["pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if padding == "pads":
        attributes["pads"] = several(0, 2, 2 * rank)
    elif padding != "none":
        attributes["auto_pad"] = padding
    if not padding.startswith("SAME"):
        attributes["dilations"] = several(1, 2)
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    return op, several(5, 8), attributes  # no window is larger than its operand


def _model(op: str, size: list[int], attributes: dict[str, object]) -> ir.Model:
    scales = {"s": np.float32(0.04), "z": np.uint8(100)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        helper.make_node(op, ["a"], ["r"], **attributes),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["p"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, *size])],
        [helper.make_tensor_value_info("p", TensorProto.UINT8, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in scales.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opset, ir_version=10))


@given(pools(), st.integers(0, 99))
@settings(max_examples=120)
def test_any_pool_is_within_one_level_of_the_runtime(pool: tuple[str, list[int], dict], seed: int) -> None:
    model = _model(*pool)
    x = np.random.default_rng(seed).normal(0, 2, (2, 3, *pool[1])).astype(np.float32)
    try:
        theirs = execute(model, {"x": x})["p"]
    except ModelError:
        assume(False)  # a pad as wide as the kernel, which the runtime refuses
    except Exception as error:  # MaxPool refuses the negative pads of auto_pad when it runs
        assume("padding values must be non-negative" not in str(error))
        raise
    assume(theirs.size)
    ours = run(model, {"x": x})["p"]
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_a_stride_longer_than_the_kernel_leaves_automatic_padding_to_the_runtime() -> None:
    model = _model("AveragePool", [6, 4], {"kernel_shape": [1, 2], "strides": [3, 1], "auto_pad": "SAME_UPPER"})
    infer(model)
    assert [s.reason for s in plan(model) if isinstance(s, FloatNode)] == ["the padding is negative"]

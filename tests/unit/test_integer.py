"""How a Q/DQ graph is read: what is fused, what stays float and why, which values exist."""

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir.integer import FloatNode, IntegerOp, Step, plan
from planish.ir.shapes import infer
from planish.ir.text import parse_model

CONSTANTS = """
    float s = {0.05}, uint8 z = {128}, float t = {0.1}, uint8 o = {100}, float u = {0.2}, uint8 k = {0},
    float zero = {0}, float six = {6}, int8[4,3,1,1] W = seeded(1), float[4] ws = {0.01,0.02,0.03,0.04},
    int32[4] B = {10,-20,30,-40}, float[4] bs = {0.0005,0.001,0.0015,0.002}, float[4] bf = {0.00051,-1,0,2}
"""
QUANTIZED = """
    q = QuantizeLinear (x, s, z)
    a = DequantizeLinear (q, s, z)
    w = DequantizeLinear <axis = 0> (W, ws)
    b = DequantizeLinear <axis = 0> (B, bs)
"""


def _plan(body: str, outputs: str = "y", constants: str = "", shape: str = "2,3,4,4") -> list[Step]:
    extra = f", {constants}" if constants else ""
    model = parse_model(f"""
    <ir_version: 10, opset_import: ["" : 20]>
    main (float[{shape}] x) => ({outputs})
       <{CONSTANTS}{extra}>
    {{
       {QUANTIZED}
       {body}
    }}
    """)
    infer(model)
    return plan(model)


def _kinds(steps: list[Step]) -> list[str]:
    return [s.kind if isinstance(s, IntegerOp) else f"float {s.node.op_type}" for s in steps]


def _one(steps: list[Step], kind: str) -> IntegerOp:
    (found,) = [s for s in steps if isinstance(s, IntegerOp) and s.kind == kind]
    return found


def _reason(steps: list[Step], op: str) -> str:
    (found,) = [s for s in steps if isinstance(s, FloatNode) and s.node.op_type == op]
    return found.reason


END = "p = QuantizeLinear (r, t, o)\n y = DequantizeLinear (p, t, o)"


def test_a_convolution_takes_its_activation_and_quantizer_with_it() -> None:
    steps = _plan(f"c = Conv (a, w, b)\n r = Clip (c, zero, six)\n {END}")
    assert _kinds(steps) == ["quantize", "conv", "dequantize"]
    conv = _one(steps, "conv")
    assert [n.op_type for n in conv.covers].count("DequantizeLinear") == 3
    assert {"Conv", "Clip", "QuantizeLinear"} <= {n.op_type for n in conv.covers}
    assert (conv.inputs[0].value, conv.outputs) == ("q", ("p",))
    assert (conv.low, conv.high) == (100, 160)  # Clip(0, 6) in steps of 0.1 from zero point 100
    expected = np.float32(
        np.float64(np.float32(0.05)) * np.array([0.01, 0.02, 0.03, 0.04], np.float32) / np.float32(0.1)
    )
    np.testing.assert_array_equal(conv.multiplier, expected)
    assert conv.bias is not None and conv.bias.tolist() == [10, -20, 30, -40]
    assert conv.weight is not None and conv.weight.dtype == np.int8


def test_activations_in_a_row_narrow_the_levels_together() -> None:
    steps = _plan(f"c = Conv (a, w, b)\n d = Clip (c, , six)\n r = Relu (d)\n {END}")
    conv = _one(steps, "conv")
    assert (conv.low, conv.high) == (100, 160)


def test_a_float_bias_is_rounded_to_steps_of_the_accumulator() -> None:
    conv = _one(_plan(f"r = Conv (a, w, bf)\n {END}"), "conv")
    assert conv.bias is not None and conv.bias.tolist() == [1, -1000, 0, 1000]


def test_a_result_that_nobody_quantizes_is_float_and_scaled_once() -> None:
    steps = _plan("y = Conv (a, w, b)")
    assert _kinds(steps) == ["quantize", "conv"]
    conv = _one(steps, "conv")
    assert conv.encoding is None and conv.outputs == ("y",)
    assert conv.multiplier is not None
    assert conv.multiplier[1] == np.float32(np.float64(np.float32(0.05)) * np.float64(np.float32(0.02)))


def test_a_result_read_in_float_and_as_integers_is_made_in_float() -> None:
    steps = _plan(f"r = Conv (a, w, b)\n {END}\n e = Softmax (r)", outputs="y, e")
    assert _kinds(steps) == ["quantize", "conv", "quantize", "float Softmax", "dequantize"]
    quantize = [s for s in steps if isinstance(s, IntegerOp) and s.kind == "quantize"][1]
    assert "not all its readers quantize it alike" in quantize.reason


def test_a_quantized_value_is_dequantized_only_for_its_float_reader() -> None:
    steps = _plan(f"r = Conv (a, w, b)\n {END}\n e = Softmax (y)\n g = Relu (y)\n h = QuantizeLinear (g, t, o)", "e, h")
    assert _kinds(steps) == ["quantize", "conv", "dequantize", "float Softmax", "unary"]
    assert "Softmax e reads it" in _one(steps, "dequantize").reason


def test_two_quantizers_of_one_encoding_share_the_integers() -> None:
    body = "r = Relu (a)\n p = QuantizeLinear (r, t, o)\n y = DequantizeLinear (p, t, o)\n v = QuantizeLinear (r, t, o)"
    steps = _plan(f"{body}\n d = DequantizeLinear (v, t, o)\n e = Add (y, d)\n f = QuantizeLinear (e, u, k)", "f")
    assert _kinds(steps) == ["quantize", "unary", "add"]
    assert [o.value for o in _one(steps, "add").inputs] == ["p", "p"]


def test_two_quantizers_of_different_encodings_read_the_float_value() -> None:
    body = "r = Conv (a, w, b)\n p = QuantizeLinear (r, t, o)\n v = QuantizeLinear (r, u, k)"
    assert _kinds(_plan(body, "p, v")) == ["quantize", "conv", "quantize", "quantize"]


def test_integers_that_are_graph_outputs_exist_under_their_names() -> None:
    body = "r = Conv (a, w, b)\n p = QuantizeLinear (r, t, o)\n v = QuantizeLinear (r, t, o)"
    steps = _plan(body, "p, v")
    assert {"p", "v"} <= {name for s in steps for name in s.outputs}
    assert all(s.encoding is not None for s in steps if isinstance(s, IntegerOp))


def test_requantizing_between_two_encodings_is_one_step() -> None:
    steps = _plan("p = QuantizeLinear (a, t, o)\n y = DequantizeLinear (p, t, o)")
    assert _kinds(steps) == ["quantize", "requantize", "dequantize"]
    assert _one(steps, "requantize").multiplier == np.float32(0.5)


def test_moved_values_need_no_quantizer_behind_them() -> None:
    steps = _plan(f"m = MaxPool <kernel_shape = [2,2]> (a)\n r = Conv (m, w, b)\n {END}")
    assert _kinds(steps) == ["quantize", "max_pool", "conv", "dequantize"]
    assert _one(steps, "conv").inputs[0].value == _one(steps, "max_pool").outputs[0]


def test_split_parts_may_have_their_own_encodings() -> None:
    body = """
       f, g, h = Split <axis = 1, num_outputs = 3> (a)
       p = QuantizeLinear (f, s, z)
       v = QuantizeLinear (g, t, o)
       y = Softmax (h)
    """
    steps = _plan(body, "p, v, y")
    assert _kinds(steps) == ["quantize", "split", "requantize", "dequantize", "float Softmax"]
    split = _one(steps, "split")
    assert split.outputs[0] == "p" and _one(steps, "requantize").outputs == ("v",)


def test_a_matmul_and_the_constant_added_behind_it_are_one_sum() -> None:
    body = f"d = DequantizeLinear <axis = 1> (D, ws)\n m = MatMul (a, d)\n r = Add (b, m)\n {END}"
    steps = _plan(body, constants="int8[3,4] D = seeded(2)", shape="2,5,3")
    assert _kinds(steps) == ["quantize", "dense", "dequantize"]
    dense = _one(steps, "dense")
    assert dense.node.op_type == "MatMul" and dense.bias is not None and dense.bias.tolist() == [10, -20, 30, -40]
    assert "Add" in [n.op_type for n in dense.covers]


def test_weights_quantized_or_transposed_in_the_graph_are_constants() -> None:
    body = f"""
       v = QuantizeLinear <axis = 0> (F, ws, wz)
       d = DequantizeLinear <axis = 0> (v, ws, wz)
       e = Transpose (d)
       r = MatMul (a, e)
       {END}
    """
    constants = "float[4,3] F = {0.1,0.2,0.3,-0.1,0,0.02,0.5,-0.5,0.3,1,2,-2}, int8[4] wz = splat(0)"
    steps = _plan(body, constants=constants, shape="2,3")
    assert _kinds(steps) == ["quantize", "dense", "dequantize"]
    dense = _one(steps, "dense")
    assert dense.weight is not None and dense.weight.shape == (3, 4)
    assert dense.weight[:, 0].tolist() == [10, 20, 30] and dense.weight[2, 3] == -50


@pytest.mark.parametrize(
    ("body", "constants", "op", "reason"),
    [
        (f"r = Conv (a, f)\n {END}", "float[4,3,1,1] f = seeded(1)", "Conv",
         "the weight is not a constant of integers"),
        (f"r = Conv (x, w, b)\n {END}", "", "Conv", "input x is not quantized"),
        (f"r = Add (a, x)\n {END}", "", "Add", "input x is not quantized"),
        ("y = Add (a, a)", "", "Add", "the result stays float"),
        (f"r = Softmax (a)\n {END}", "", "Softmax", "Softmax has no integer form"),
        (f"r = Relu (x)\n {END}", "", "Relu", "no input is quantized"),
        (f"r = Log (a)\n {END}", "", "Log", "the function is not defined on every level of its operand"),
        (f"e = DequantizeLinear <axis = 1> (W, bw)\n r = Conv (a, e)\n {END}", "float[3] bw = splat(0.1)", "Conv",
         "the weight has scales along the axis that is summed over"),
        (f"r = Conv (a, w, big)\n {END}", "float[4] big = splat(1e9)", "Conv",
         "the bias does not fit int32 at scale s_x · s_w"),
        (f"r = Gemm <alpha = 2.0> (a, w)\n {END}", "", "Gemm", "alpha or beta is not 1"),
        (f'r = Resize <mode = "linear"> (a, , twice)\n {END}', "float[4] twice = {1,1,2,2}", "Resize",
         "mode linear"),
    ],
)  # fmt: skip
def test_what_stays_float_says_why(body: str, constants: str, op: str, reason: str) -> None:
    outputs = "y"
    assert _reason(_plan(body, outputs, constants), op) == reason


def test_a_sum_that_could_overflow_int32_stays_float() -> None:
    """70000 products of at most 255 · 127 pass 2³¹; with half as many they cannot."""
    for depth, refused in ((70000, True), (35000, False)):
        body = "d = DequantizeLinear (D, u)\n r = MatMul (a, d)\n " + END
        steps = _plan(body, constants=f"int8[{depth},1] D = splat(127)", shape=f"1,{depth}")
        reasons = [s.reason for s in steps if isinstance(s, FloatNode)]
        assert reasons == (["the sum of products could overflow the accumulator"] if refused else [])


def test_unknown_sizes_matter_only_where_they_are_used() -> None:
    same = f'r = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (a, w, b)\n {END}'
    assert "is not static" in _reason(_plan(same, shape='2,3,"h","w"'), "Conv")
    assert _kinds(_plan(same, shape='"n",3,5,4')) == ["quantize", "conv", "dequantize"]
    plain = f"r = Conv <strides = [2,2]> (a, w, b)\n {END}"
    assert _kinds(_plan(plain, shape='"n",3,"h","w"')) == ["quantize", "conv", "dequantize"]


def test_scales_that_are_computed_leave_both_nodes_in_float() -> None:
    model = parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    main (float[4] x, float s) => (float[4] y)
       <uint8 z = {3}>
    {
       q = QuantizeLinear (x, s, z)
       d = DequantizeLinear (q, s, z)
       y = Relu (d)
    }
    """)
    steps = plan(model)
    assert _kinds(steps) == ["float QuantizeLinear", "float DequantizeLinear", "float Relu"]
    assert _reason(steps, "QuantizeLinear") == "scale or zero point is not constant"


def test_every_node_is_accounted_for_once() -> None:
    body = f"m = MaxPool <kernel_shape = [2,2]> (a)\n c = Conv (m, w, b)\n r = Relu (c)\n {END}\n e = Softmax (y)"
    steps = _plan(body, "e")
    cores = [s.node for s in steps if not (isinstance(s, IntegerOp) and s.kind in ("quantize", "dequantize"))]
    assert len(cores) == len(set(cores))
    covered = {n for s in steps for n in (s.covers if isinstance(s, IntegerOp) else (s.node,))}
    graph = steps[0].node.graph
    assert isinstance(graph, ir.Graph)
    assert covered == set(graph)


def test_reading_leaves_the_model_as_it_was() -> None:
    model = parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    main (float[1,8] x) => (float[1,8] y)
       <float s = {0.1}, uint8 z = {3}>
    {
       q = QuantizeLinear (x, s, z)
       d = DequantizeLinear (q, s, z)
       y = Relu (d)
    }
    """)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    plan(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before

"""Every operator with an integer form against ONNX Runtime's execution of the same Q/DQ graph, on equal integers."""

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir.execute import execute
from planish.ir.integer import FloatNode, plan
from planish.ir.reference import run
from planish.ir.shapes import infer
from planish.ir.text import parse_model

Case = tuple[list[str], str, str, str]

# name: (kinds of the steps between quantize and dequantize, operand shape, operator text reading a [and b], constants)
SUMS = {
    "Conv": (["conv"], "2,4,9,8", "Conv <pads = [1,0,2,1], strides = [2,1]> (a, w, v)", "conv"),
    "Conv SAME_UPPER": (["conv"], "2,4,9,8", 'Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (a, w, v)', "conv"),
    "Conv SAME_LOWER": (["conv"], "2,4,9,8", 'Conv <auto_pad = "SAME_LOWER", strides = [2,2]> (a, w, v)', "conv"),
    "Conv dilated": (["conv"], "2,4,9,8", "Conv <dilations = [2,1]> (a, w, v)", "conv"),
    "Conv float bias": (["conv"], "2,4,9,8", "Conv (a, w, f)", "conv"),
    "Conv no bias": (["conv"], "2,4,9,8", "Conv (a, w)", "conv"),
    "Conv grouped": (["conv"], "2,8,9,8", "Conv <group = 2> (a, w, v)", "conv"),
    "Gemm": (["dense"], "3,4", "Gemm <transB = 1> (a, d, v)", "dense"),
    "MatMul": (["dense"], "2,3,4", "MatMul (a, e)", "dense"),
    "MatMul of activations": (["matmul"], "2,6,6", "MatMul (a, a)", ""),
    "Mul": (["mul"], "2,4,5", "Mul (a, a)", ""),
    "Mul by a constant": (["requantize"], "2,4,5", "Mul (a, g)", ""),
    "Mul by a channel's constant": (["requantize"], "2,4,5", "Mul (h, a)", ""),
    "Div by a constant": (["requantize"], "2,4,5", "Div (a, g)", ""),
    "Add": (["add"], "2,4,5", "Add (a, a)", ""),
    "Add a float constant": (["add"], "2,4,5", "Add (h, a)", ""),
    "Add an integer constant": (["add"], "2,4,5", "Add (a, c)", ""),
    "Sub": (["add"], "2,4,5", "Sub (c, a)", ""),
    "Sub a float constant": (["add"], "2,4,5", "Sub (a, h)", ""),
    "AveragePool": (["average_pool"], "2,4,9,8", "AveragePool <kernel_shape = [3,2], strides = [2,2]> (a)", ""),
    "AveragePool border": (
        ["average_pool"],
        "2,4,9,8",
        "AveragePool <kernel_shape = [3,3], pads = [1,1,1,1], strides = [2,2], ceil_mode = 1> (a)",
        "",
    ),
    "AveragePool counting its padding": (
        ["average_pool"],
        "2,4,9,8",
        "AveragePool <kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1> (a)",
        "",
    ),
    "GlobalAveragePool": (["mean"], "6,4,9,8", "GlobalAveragePool (a)", ""),
    "ReduceMean": (["mean"], "6,4,9,8", "ReduceMean <keepdims = 0> (a, axes)", ""),
    "ReduceSum": (["mean"], "4,3,9", "ReduceSum (a, last)", ""),
}

FUNCTIONS = {
    op: (["unary"], "2,4,32", text, "")
    for op, text in {
        "Abs": "Abs (a)",
        "Clip": "Clip (a, g, top)",
        "Elu": "Elu <alpha = 0.7> (a)",
        "Erf": "Erf (a)",
        "Exp": "Exp (a)",
        "Gelu": "Gelu (a)",
        "Gelu tanh": 'Gelu <approximate = "tanh"> (a)',
        "HardSigmoid": "HardSigmoid (a)",
        "HardSwish": "HardSwish (a)",
        "LeakyRelu": "LeakyRelu <alpha = 0.2> (a)",
        "Mish": "Mish (a)",
        "Neg": "Neg (a)",
        "PRelu": "PRelu (a, g)",
        "Pow": "Pow (a, two)",
        "Relu": "Relu (a)",
        "Selu": "Selu (a)",
        "Sigmoid": "Sigmoid (a)",
        "Softplus": "Softplus (a)",
        "Softsign": "Softsign (a)",
        "Tanh": "Tanh (a)",
        "ThresholdedRelu": "ThresholdedRelu <alpha = 0.5> (a)",
    }.items()
}

MOVES = {
    "MaxPool": (["max_pool"], "2,4,9,8", "MaxPool <kernel_shape = [3,2], strides = [2,1], pads = [1,1,1,0]> (a)", ""),
    "MaxPool ceil": (["max_pool"], "2,4,9,8", "MaxPool <kernel_shape = [2,3], strides = [2,2], ceil_mode = 1> (a)", ""),
    "MaxPool dilated": (["max_pool"], "2,4,9,8", "MaxPool <kernel_shape = [2,2], dilations = [3,2]> (a)", ""),
    "GlobalMaxPool": (["max"], "2,4,9,8", "GlobalMaxPool (a)", ""),
    "ReduceMax": (["max"], "2,4,9,8", "ReduceMax (a, axes)", ""),
    "Reshape": (["reshape"], "2,4,6", "Reshape (a, target)", ""),
    "Flatten": (["reshape"], "2,4,6", "Flatten (a)", ""),
    "Unsqueeze": (["reshape"], "2,4,6", "Unsqueeze (a, last)", ""),
    "Identity": (["reshape"], "2,4,6", "Identity (a)", ""),
    "Transpose": (["transpose"], "2,4,6", "Transpose <perm = [1,2,0]> (a)", ""),
    "Transpose all": (["transpose"], "2,4,6", "Transpose (a)", ""),
    "Slice": (["slice"], "2,4,9,8", "Slice (a, one, many, axes)", ""),
    "Slice backwards": (["slice"], "2,4,9,8", "Slice (a, many, floor, axes, back)", ""),
    "Pad": (["pad"], "2,4,6", "Pad (a, around)", ""),
    "Pad with a value": (["pad"], "2,4,6", "Pad (a, around, g)", ""),
    "Pad reflect": (["pad"], "2,4,6", 'Pad <mode = "reflect"> (a, around)', ""),
    "Pad edge": (["pad"], "2,4,6", 'Pad <mode = "edge"> (a, around)', ""),
    "Concat": (["concat"], "2,4,6", "Concat <axis = 1> (a, a)", ""),
    "Gather": (["gather"], "2,4,6", "Gather <axis = 1> (a, picks)", ""),
    "DepthToSpace": (["depth_to_space"], "2,8,3,4", "DepthToSpace <blocksize = 2> (a)", ""),
    "DepthToSpace CRD": (["depth_to_space"], "2,8,3,4", 'DepthToSpace <blocksize = 2, mode = "CRD"> (a)', ""),
    "SpaceToDepth": (["space_to_depth"], "2,2,6,4", "SpaceToDepth <blocksize = 2> (a)", ""),
    "Resize": (
        ["resize"],
        "2,2,5,4",
        'Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (a, , scales)',
        "",
    ),
    "Resize half pixel": (["resize"], "2,2,5,4", "Resize (a, , scales)", ""),
    "Resize align corners": (
        ["resize"],
        "2,2,5,4",
        'Resize <coordinate_transformation_mode = "align_corners"> (a, , , sizes)',
        "",
    ),
}

_WEIGHTS = {
    "": "",
    "conv": "w = DequantizeLinear <axis = 0> (W, ws)\n v = DequantizeLinear <axis = 0> (V, vs)",
    "dense": """d = DequantizeLinear <axis = 0> (D, ws)
       e = DequantizeLinear <axis = 1> (E, ws)
       v = DequantizeLinear <axis = 0> (V, vs)""",
}


def _model(case: Case, kind: str, scale: float, zero: int, operand_zero: int) -> ir.Model:
    _, shape, operator, constants = case
    scales = np.array([0.01, 0.02, 0.005, 0.03, 0.011, 0.017], np.float32)
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    main (float[{shape}] x) => (y)
       <float s = {{0.04}}, {kind} z = {{{operand_zero}}}, float t = {{{scale}}}, {kind} o = {{{zero}}},
        float cs = {{0.02}}, {kind} cz = {{3}}, {kind}[1,4,1] C = {{100,9,0,50}},
        int8[6,4,3,2] W = seeded(1), int8[6,4] D = seeded(2), int8[4,6] E = seeded(3),
        int32[6] V = {{100,-2000,0,44,1234,-5}},
        float[6] ws = {_set(scales)}, float[6] vs = {_set(scales * np.float32(0.04))},
        float[6] f = {{0.5,-0.25,0.1,0,1,-1}}, float g = {{-0.3}}, float top = {{2.2}}, float two = {{2}},
        float[4,1] h = {{0.5,-2,1.25,0.1}}, int64[2] axes = {{2,3}}, int64[1] last = {{2}}, int64[2] target = {{-1,12}},
        int64[2] one = {{1,-5}}, int64[2] many = {{100,5}}, int64[2] floor = {{-9223372036854775807,1}},
        int64[2] back = {{-2,-1}}, int64[6] around = {{0,1,2,0,2,1}}, int64[3] picks = {{2,-1,0}},
        float[4] scales = {{1,1,2,1.5}}, int64[4] sizes = {{2,2,7,3}}>
    {{
       q = QuantizeLinear (x, s, z)
       a = DequantizeLinear (q, s, z)
       c = DequantizeLinear (C, cs, cz)
       {_WEIGHTS[constants]}
       r = {operator}
       p = QuantizeLinear (r, t, o)
       y = DequantizeLinear (p, t, o)
    }}
    """
    model = parse_model(text)
    infer(model)
    return model


def _set(values: np.ndarray) -> str:
    return "{" + ",".join(repr(float(v)) for v in values) + "}"


def _results(case: Case, kind: str, scale: float, zero: int, operand_zero: int = 18) -> tuple[np.ndarray, np.ndarray]:
    model = _model(case, kind, scale, zero, operand_zero)
    shape = [int(d) for d in case[1].split(",")]
    x = np.random.default_rng(5).normal(0, 1.5, shape).astype(np.float32)
    steps = plan(model)
    assert [s.kind for s in steps if not isinstance(s, FloatNode)] == ["quantize", *case[0], "dequantize"]
    assert not [s for s in steps if isinstance(s, FloatNode)]
    return run(model, {"x": x}, ["p"])["p"], execute(model, {"x": x}, ["p"])["p"]


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize("name", [*SUMS, *FUNCTIONS])
def test_levels_are_within_one_of_the_float_execution(name: str, kind: str) -> None:
    case = (SUMS | FUNCTIONS)[name]
    wide, narrow = name.startswith(("Conv", "Gemm", "MatMul", "ReduceSum")), name in ("GlobalAveragePool", "ReduceMean")
    ours, theirs = _results(case, kind, 0.37 if wide else 0.01 if narrow else 0.05, 60)
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.02
    assert len(np.unique(theirs)) > 8  # the levels are used, so that the comparison says something


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize("name", MOVES)
def test_moved_levels_are_equal(name: str, kind: str) -> None:
    ours, theirs = _results(MOVES[name], kind, scale=0.04, zero=7, operand_zero=7)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", MOVES)
def test_moved_levels_are_requantized_where_the_encodings_differ(name: str) -> None:
    kinds, shape, operator, constants = MOVES[name]
    ours, theirs = _results((["requantize", *kinds], shape, operator, constants), "uint8", scale=0.05, zero=60)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
    assert (ours != theirs).mean() <= 0.02

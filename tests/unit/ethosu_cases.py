"""Every operator that Ethos-U's back end has a form for, as a small model with 8-bit or 16-bit activations."""

import onnx_ir as ir
from planish.ir.shapes import infer
from planish.ir.text import parse_model

__all__ = ["CASES", "build"]


def _line(code: str, *before: str) -> list[str]:
    """The operators around one over a line, which comes with its channels first."""
    return ["TRANSPOSE", "RESHAPE", *before, code, "RESHAPE"]


# name: (operator text reading a, shape of a, encoding of the result: scale and zero point, TFLite operators)
CASES = {
    "Conv": ("Conv <pads = [1,1,1,1]> (a, w, v)", "1,4,9,8", (0.4, 3), ["CONV_2D"]),
    "Conv with Relu": ("Relu (n)", "1,4,9,8", (0.2, -128), ["CONV_2D"]),
    "Conv with Clip": ("Clip (n, low, six)", "1,4,9,8", (0.1, -100), ["CONV_2D"]),
    "Conv with an odd Clip": ("Clip (n, low, top)", "1,4,9,8", (0.1, -100), ["CONV_2D", "MAXIMUM", "MINIMUM"]),
    "Conv strided": ("Conv <pads = [1,1,1,1], strides = [2,2]> (a, w, v)", "1,4,8,8", (0.4, 3), ["PAD", "CONV_2D"]),
    "Conv lopsided": ("Conv <pads = [2,0,0,1]> (a, w, v)", "1,4,9,8", (0.4, 3), ["PAD", "CONV_2D"]),
    "Conv dilated": ("Conv <dilations = [2,1]> (a, w, v)", "1,4,9,8", (0.4, 3), ["CONV_2D"]),
    "Conv depthwise": ("Conv <group = 4> (a, u, v)", "1,4,9,8", (0.3, 3), ["DEPTHWISE_CONV_2D"]),
    "Conv grouped": ("Conv <group = 2> (a, grouped, v)", "1,4,9,8", (0.3, 3), ["CONV_2D"]),
    "Conv 4 strides": ("Conv <strides = [4,4]> (a, w, v)", "1,4,16,16", (0.4, 3), ["CONV_2D"]),
    "Conv depthwise 4 strides": (
        "Conv <group = 4, strides = [4,4]> (a, u, v)",
        "1,4,16,16",
        (0.3, 3),
        ["DEPTHWISE_CONV_2D"],
    ),
    "Conv over a line": (
        "Conv <pads = [1,1], strides = [2]> (a, line, v)",
        "1,4,12",
        (0.3, 3),
        _line("CONV_2D", "PAD"),
    ),
    "Conv depthwise over a line": ("Conv <group = 4> (a, lines, v)", "1,4,12", (0.2, 3), _line("DEPTHWISE_CONV_2D")),
    "ConvTranspose": (
        "ConvTranspose <strides = [2,2], pads = [1,1,1,1], output_padding = [1,1]> (a, wt, v)",
        "1,4,5,6",
        (0.4, 3),
        ["TRANSPOSE_CONV", "SLICE"],
    ),
    "ConvTranspose of stride 3": (
        "ConvTranspose <strides = [3,3]> (a, wt, v)",
        "1,4,5,6",
        (0.4, 3),
        ["TRANSPOSE_CONV"],
    ),
    "ConvTranspose with Relu": ("Relu (t2)", "1,4,5,6", (0.2, -128), ["TRANSPOSE_CONV"]),
    "Gemm": ("Gemm <transB = 1> (a, d, v)", "1,4", (0.2, 3), ["FULLY_CONNECTED"]),
    "MatMul": ("MatMul (a, e)", "1,3,4", (0.2, 3), ["FULLY_CONNECTED"]),
    "MatMul of activations": ("MatMul (a, a)", "1,6,6", (0.1, 3), ["BATCH_MATMUL"]),
    "Add": ("Add (a, a)", "1,4,9,8", (0.08, 3), ["ADD"]),
    "Add of a channel": ("Add (a, c)", "1,4,9,8", (0.08, 3), ["ADD"]),
    "Sub": ("Sub (a, c)", "1,4,9,8", (0.08, 3), ["SUB"]),
    "Mul": ("Mul (a, a)", "1,4,9,8", (0.1, -90), ["MUL"]),
    "Mul by a constant": ("Mul (a, g)", "1,4,9,8", (0.02, 3), ["MUL"]),
    "Mul by a constant for each channel": ("Mul (a, gains)", "1,4,9,8", (0.1, 3), ["DEPTHWISE_CONV_2D"]),
    "Add of a number": ("Add (a, g)", "1,4,9", (0.04, 3), ["ADD"]),
    "Sub from a number": ("Sub (g, a)", "1,4,9", (0.04, 3), ["SUB"]),
    "Add of a row": ("Add (a, row)", "1,3,4", (0.06, 3), ["RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE"]),
    "Add of a number for each channel": ("Add (a, gains)", "1,4,9,8", (0.06, 3), ["DEPTHWISE_CONV_2D"]),
    "AveragePool": ("AveragePool <kernel_shape = [3,3]> (a)", "1,4,9,8", (0.03, 3), ["DEPTHWISE_CONV_2D"]),
    "AveragePool over a line": ("AveragePool <kernel_shape = [3]> (a)", "1,4,9", (0.03, 3), _line("DEPTHWISE_CONV_2D")),
    "MaxPool over a line": (
        "MaxPool <kernel_shape = [2], strides = [2]> (a)",
        "1,4,9",
        (0.04, 18),
        _line("MAX_POOL_2D"),
    ),
    "AveragePool in place": ("AveragePool <kernel_shape = [2,2]> (a)", "1,4,8,8", (0.04, 18), ["AVERAGE_POOL_2D"]),
    "AveragePool of all": ("AveragePool <kernel_shape = [8,8]> (a)", "1,4,8,8", (0.01, 3), ["MEAN"]),
    "GlobalAveragePool": ("GlobalAveragePool (a)", "1,4,9,8", (0.01, 3), ["MEAN"]),
    "ReduceMean": ("ReduceMean <keepdims = 0> (a, axes)", "1,4,9,8", (0.01, 3), ["MEAN"]),
    "MaxPool": ("MaxPool <kernel_shape = [2,2], strides = [2,2]> (a)", "1,4,9,8", (0.04, 18), ["MAX_POOL_2D"]),
    "MaxPool padded": (
        "MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (a)",
        "1,4,8,8",
        (0.04, 18),
        ["PADV2", "MAX_POOL_2D"],
    ),
    "GlobalMaxPool": ("GlobalMaxPool (a)", "1,4,9,8", (0.04, 18), ["REDUCE_MAX"]),
    "Reshape": ("Reshape (a, target)", "1,4,6,2", (0.04, 18), ["TRANSPOSE", "RESHAPE"]),
    "Reshape of a vector": ("Flatten (a)", "1,12,1,1", (0.04, 18), ["RESHAPE", "RESHAPE"]),
    "Transpose to NHWC, Reshape": ("Reshape (m, target)", "1,4,6,2", (0.04, 18), ["RESHAPE"]),
    "Slice": ("Slice (a, one, many, axes)", "1,4,9,8", (0.04, 18), ["SLICE"]),
    "Slice strided": ("Slice (a, one, many, axes, steps)", "1,4,9,8", (0.04, 18), ["STRIDED_SLICE"]),
    "Pad": ("Pad (a, around)", "1,4,6,5", (0.04, 18), ["PAD"]),
    "Pad with a value": ("Pad (a, around, g)", "1,4,6,5", (0.04, 18), ["PADV2"]),
    "Pad reflect": ('Pad <mode = "reflect"> (a, around)', "1,4,6,5", (0.04, 18), ["MIRROR_PAD"]),
    "Concat": ("Concat <axis = 1> (a, a)", "1,4,6,5", (0.04, 18), ["CONCATENATION"]),
    "Split": ("Concat <axis = 1> (k2, k1)", "1,4,6,5", (0.04, 18), ["SPLIT_V", "CONCATENATION"]),
    "Gather": ("Gather <axis = 1> (a, picks)", "1,4,6,5", (0.04, 18), ["GATHER"]),
    "DepthToSpace": ("DepthToSpace <blocksize = 2> (a)", "1,8,3,4", (0.04, 18), ["RESHAPE", "TRANSPOSE", "RESHAPE"]),
    "DepthToSpace CRD": (
        'DepthToSpace <blocksize = 2, mode = "CRD"> (a)',
        "1,8,3,4",
        (0.04, 18),
        ["RESHAPE", "TRANSPOSE", "RESHAPE"],
    ),
    "SpaceToDepth": ("SpaceToDepth <blocksize = 2> (a)", "1,2,6,4", (0.04, 18), ["RESHAPE", "TRANSPOSE", "RESHAPE"]),
    "Resize": (
        'Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (a, , scales)',
        "1,2,5,4",
        (0.04, 18),
        ["RESIZE_NEAREST_NEIGHBOR"],
    ),
    "Resize by 3": (
        'Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (a, , thrice)',
        "1,2,5,4",
        (0.04, 18),
        ["RESIZE_NEAREST_NEIGHBOR"],
    ),
    "Resize linear": (
        'Resize <mode = "linear"> (a, , scales)',
        "1,2,5,4",
        (0.04, 18),
        ["RESIZE_BILINEAR"],
    ),
    "Resize linear by 4": (
        'Resize <mode = "linear", coordinate_transformation_mode = "asymmetric"> (a, , fourfold)',
        "1,2,5,4",
        (0.04, 18),
        ["RESIZE_BILINEAR"],
    ),
    "Resize linear with corners": (
        'Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (a, , , corners)',
        "1,2,5,4",
        (0.04, 18),
        ["RESIZE_BILINEAR"],
    ),
    "Softmax": ("Softmax (a)", "1,4,32", (1 / 256, -128), ["SOFTMAX"]),
    "Softmax of channels": ("Softmax <axis = 1> (a)", "1,5,4,3", (0.005, -120), ["SOFTMAX", "QUANTIZE"]),
    "Abs": ("Abs (a)", "1,4,32", (0.03, -110), ["ABS"]),
    "Exp": ("Exp (a)", "1,4,32", (0.1, -120), ["EXP"]),
    "Gelu": ("Gelu (a)", "1,4,32", (0.03, -110), ["GELU"]),
    "Reciprocal square root": ("Pow (h, minus)", "1,4,32", (0.05, -100), ["RSQRT"]),
    "HardSwish": ("HardSwish (a)", "1,4,32", (0.03, -110), ["HARD_SWISH"]),
    "LeakyRelu": ("LeakyRelu <alpha = 0.2> (a)", "1,4,32", (0.03, -80), ["LEAKY_RELU"]),
    "Relu alone": ("Relu (a)", "1,4,32", (0.03, -128), ["QUANTIZE"]),
    "Sigmoid": ("Sigmoid (a)", "1,4,32", (1 / 256, -128), ["LOGISTIC"]),
    "Sigmoid elsewhere": ("Sigmoid (a)", "1,4,32", (0.005, -120), ["LOGISTIC", "QUANTIZE"]),
    "Tanh": ("Tanh (a)", "1,4,32", (1 / 128, 0), ["TANH"]),
    "Requantize": ("Identity (a)", "1,4,32", (0.05, 3), ["QUANTIZE"]),
}


def build(name: str, wide: bool = False) -> ir.Model:
    """The model of a case; wide: int16 activations, symmetric, 256 times as fine."""
    operator, shape, (scale, zero), _ = CASES[name]
    unit = 0.04
    if wide:
        fixed = operator.startswith(("Sigmoid", "Softmax", "Tanh")) and scale in (1 / 256, 1 / 128)
        scale, zero, unit = 1 / 32768 if fixed else scale / 256, 0, 0.04 / 256
    kind, offset, lowest = ("int16", 0, 0) if wide else ("int8", 18, -128)
    uses = {
        "n": "n = Conv <pads = [1,1,1,1]> (a, w, v)",
        "m": "m = Transpose <perm = [0,2,3,1]> (a)",
        "h": "j = QuantizeLinear (x, s, floor)  h = DequantizeLinear (j, s, floor)",
        "k2": "k1, k2 = Split <axis = 1, num_outputs = 2> (a)",
        "t2": "t2 = ConvTranspose <strides = [2,2]> (a, wt, v)",
    }
    before = "".join(text for value, text in uses.items() if f"({value}" in operator)
    model = parse_model(f"""
    <ir_version: 10, opset_import: ["" : 21]>
    main (float[{shape}] x) => (y)
       <float s = {{{unit}}}, {kind} z = {{{offset}}}, float t = {{{scale}}}, {kind} o = {{{zero}}},
        float cs = {{0.02}}, {kind} cz = {{{0 if wide else 3}}}, {kind}[1,4,1,1] C = {{100,9,0,50}},
        int8[4,4,3] L = seeded(5), int8[4,1,3] K = seeded(6), float[4] fourfold = {{1,1,4,4}},
        int64[4] corners = {{1,2,9,7}}, int8[4,4,3,3] W = seeded(1), int8[4,1,3,3] U = seeded(4),
        int8[4,2,3,3] G = seeded(7), int8[4,4] D = seeded(2), int8[4,4] E = seeded(3),
        int32[4] V = {{100,-2000,0,44}}, float[4] ws = {{0.01,0.02,0.005,0.03}},
        float[4] vs = {{0.0004,0.0008,0.0002,0.0012}}, float g = {{-0.32}}, float minus = {{-0.5}},
        float[4,1,1] gains = {{0.3,-2,0.01,1}}, float[4] row = {{0.3,-2,0.01,1}},
        {kind} floor = {{{lowest}}}, float low = {{0}}, float six = {{6}},
        float top = {{2.2}}, int64[2] axes = {{2,3}}, int64[2] target = {{-1,12}},
        int64[2] one = {{1,0}}, int64[2] many = {{100,5}}, int64[2] steps = {{2,2}},
        int64[8] around = {{0,0,1,2,0,0,2,1}}, int64[3] picks = {{2,-1,0}},
        float[4] scales = {{1,1,2,2}}, float[4] thrice = {{1,1,3,3}}>
    {{
       q = QuantizeLinear (x, s, z)
       a = DequantizeLinear (q, s, z)
       c = DequantizeLinear (C, cs, cz)
       w = DequantizeLinear <axis = 0> (W, ws)
       u = DequantizeLinear <axis = 0> (U, ws)
       grouped = DequantizeLinear <axis = 0> (G, ws)
       line = DequantizeLinear <axis = 0> (L, ws)
       lines = DequantizeLinear <axis = 0> (K, ws)
       wt = DequantizeLinear <axis = 1> (W, ws)
       d = DequantizeLinear <axis = 0> (D, ws)
       e = DequantizeLinear <axis = 1> (E, ws)
       v = DequantizeLinear <axis = 0> (V, vs)
       {before}
       r = {operator}
       p = QuantizeLinear (r, t, o)
       y = DequantizeLinear (p, t, o)
    }}
    """)
    infer(model)
    return model

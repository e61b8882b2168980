"""Float nodes as TFLite operators for the CPU beside the NPU; movement and pools share the integer forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.functions import UNARY
from ...ir.graph import attribute
from ...ir.integer import IntegerOp, Operand
from ...ir.integer.encodings import known
from ...ir.integer.reader import HANDLERS
from ...ir.integer.site import Sink
from ...ir.integer.site import Site as Reading
from ...ir.integer.steps import Refusal
from ...ir.quantization import Encoding
from ...ir.windows import conv_attributes
from ...targets.tflite import Tensor
from . import products, transposed
from .elementwise import ACTIVATIONS, aligned
from .site import NHWC, Located, NoForm, Site, row_major

__all__ = ["FLOATS", "emit", "needs"]

Array = npt.NDArray[np.generic]
_UNIT = Encoding(np.asarray(1.0, np.float32), np.asarray(0, np.int32), ir.DataType.INT8)
_BINARY = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV", "Pow": "POW", "Max": "MAXIMUM", "Min": "MINIMUM"}


class _Unquantized(Reading):
    """The reading of a float node: nothing behind it quantizes its result."""

    def sink(self, i: int = 0, *, fuse: bool = True) -> Sink | None:
        return None


def needs(node: ir.Node) -> list[ir.Value]:
    """The inputs of a node that are computed, in order; the others are constants it reads itself."""
    return [v for v in node.inputs if v is not None and known(v) is None]


def emit(site: Site, node: ir.Node, kernels: Mapping[str, Callable[[Site, IntegerOp], None]]) -> None:
    """Append the operators that compute one float node; site.operands are what `needs` lists.

    kernels: the forms of integer operations, for what is the same in float.
    """
    if node.domain not in ("", "ai.onnx"):
        raise NoForm(f"operator of domain {node.domain}")
    if node.op_type in FLOATS:
        FLOATS[node.op_type](site, node)
        return
    if node.op_type not in HANDLERS or node.op_type in UNARY:
        raise NoForm(f"{node.op_type} on real numbers")
    reading = _Unquantized(node, lambda v: Operand(v.name or "", _UNIT), lambda stem: stem)
    try:
        HANDLERS[node.op_type](reading)
    except Refusal as refusal:
        raise NoForm(str(refusal)) from refusal
    if len(reading.steps) != 1:
        raise NoForm(f"{node.op_type} in several steps")
    (step,) = reading.steps
    if node.op_type == "Concat":
        site.operands = _all(site, node)
    inputs = tuple(Operand(o.value, None, o.constant) for o in step.inputs)
    names = tuple(str(v.name) for v in node.outputs)
    kernels[step.kind](site, replace(step, inputs=inputs, encoding=None, outputs=names))


def _step(kind: str, node: ir.Node, **fields: Any) -> IntegerOp:
    inputs = tuple(Operand(str(v.name), None) for v in needs(node))
    return IntegerOp(kind, node, inputs, (str(node.outputs[0].name),), None, **fields)


def _constant(node: ir.Node, i: int) -> Array | None:
    return known(node.inputs[i]) if i < len(node.inputs) else None


def _weights(node: ir.Node) -> Array:
    weight = _constant(node, 1)
    if weight is None:
        raise NoForm("weights that are computed")
    return weight


def _conv(site: Site, node: ir.Node) -> None:
    weight = _weights(node)
    bias = _constant(node, 2)
    bias = np.zeros(weight.shape[0], np.float32) if bias is None else bias
    attributes = conv_attributes(node, lambda: site.operands[0].shape[2:], weight.shape)
    products.conv(site, _step("conv", node, weight=weight, bias=bias.reshape(-1), attributes=attributes))


def _conv_transpose(site: Site, node: ir.Node) -> None:
    weight, bias = _weights(node), _constant(node, 2)
    if weight.ndim != 4 or attribute(node, "group", 1) != 1 or set(_ints(node, "dilations", (1, 1))) != {1}:
        raise NoForm("a transposed convolution that is grouped, dilated, or not over two axes")
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET" or attribute(node, "output_shape") is not None:
        raise NoForm("a transposed convolution whose padding is implicit")
    attributes = {
        "strides": _ints(node, "strides", (1, 1)),
        "pads": _ints(node, "pads", (0, 0, 0, 0)),
        "output_padding": _ints(node, "output_padding", (0, 0)),
    }
    bias = np.zeros(weight.shape[1], np.float32) if bias is None else bias.reshape(-1)
    transposed.conv_transpose(site, _step("conv_transpose", node, weight=weight, bias=bias, attributes=attributes))


def _ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    found: Any = attribute(node, name)
    return [int(v) for v in (default if found is None else found)]


def _gemm(site: Site, node: ir.Node) -> None:
    weight, bias = _weights(node), _constant(node, 2)
    if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
        raise NoForm("alpha, beta or transA")
    weight = weight.T if attribute(node, "transB", 0) else weight
    bias = np.zeros(weight.shape[1], np.float32) if bias is None else np.broadcast_to(bias.reshape(-1), weight.shape[1])
    products.dense(site, _step("dense", node, weight=weight, bias=bias))


def _matmul(site: Site, node: ir.Node) -> None:
    weight = _constant(node, 1)
    if weight is not None and weight.ndim == 2:
        products.dense(site, _step("dense", node, weight=weight, bias=np.zeros(weight.shape[1], np.float32)))
        return
    site.operands = _all(site, node)
    products.matmul(site, _step("matmul", node))


def _all(site: Site, node: ir.Node) -> list[Located]:
    """Every input, constants included, in the order of the node."""
    computed = iter(site.operands)
    found = []
    for value in node.inputs:
        array = known(value)
        if array is None:
            found.append(next(computed))
        else:
            found.append(Located(site.constant(array), row_major(array.ndim)))
    return found


def _binary(site: Site, node: ir.Node) -> None:
    site.operands = _all(site, node)
    if len(site.operands) != 2:
        raise NoForm(f"{node.op_type} of {len(site.operands)} operands")
    (a, b), axes = aligned(site)
    fused = {"fusedActivationFunction": "NONE"} if node.op_type in ("Add", "Sub", "Mul", "Div") else {}
    result = site.tensor(np.broadcast_shapes(a.shape, b.shape))
    site.add(_BINARY[node.op_type], [a, b], [result], **fused)
    site.give(result, axes)


def _activation(site: Site, node: ir.Node) -> None:
    code, options = ACTIVATIONS[node.op_type]
    place = site.operands[0]
    site.give(site.apply(code, [place.tensor], place.tensor.shape, **options(_step("unary", node))), place.axes)


def _hard_swish(site: Site, node: ir.Node) -> None:
    """x · min(max(x + 3, 0), 6) / 6 in pieces: Vela refuses a file with a float HARD_SWISH."""
    place = site.operands[0]
    x, shape = place.tensor, place.tensor.shape

    def number(value: float) -> Tensor:
        return site.constant(np.full((1,) * len(shape), value, np.float32))

    gate = site.apply("ADD", [x, number(3.0)], shape, fusedActivationFunction="RELU6")
    product = site.apply("MUL", [x, gate], shape, fusedActivationFunction="NONE")
    site.give(site.apply("MUL", [product, number(1 / 6)], shape, fusedActivationFunction="NONE"), place.axes)


def _plain(code: str) -> Callable[[Site, ir.Node], None]:
    def build(site: Site, node: ir.Node) -> None:
        place = site.operands[0]
        site.give(site.apply(code, [place.tensor], place.tensor.shape), place.axes)

    return build


def _clip(site: Site, node: ir.Node) -> None:
    place = site.operands[0]
    tensor = place.tensor
    for i, code, name in ((1, "MAXIMUM", "min"), (2, "MINIMUM", "max")):
        bound: Any = _constant(node, i)
        bound = attribute(node, name) if bound is None else np.ravel(bound)[0]
        if bound is not None:
            limit = site.constant(np.full((1,) * len(tensor.shape), bound, np.float32))
            tensor = site.apply(code, [tensor, limit], tensor.shape)
    site.give(tensor, place.axes)


def _softmax(site: Site, node: ir.Node) -> None:
    rank = len(site.operands[0].axes)
    axis = int(attribute(node, "axis", -1)) % rank  # type: ignore[call-overload]
    axes = (*(a for a in row_major(rank) if a != axis), axis)
    x = site.operand(0, axes)
    site.give(site.apply("SOFTMAX", [x], x.shape, beta=1.0), axes)


def _instance_norm(site: Site, node: ir.Node) -> None:
    """(x − mean) · rsqrt(mean((x − mean)²) + ε) · scale + shift over the spatial axes."""
    scale, shift = _constant(node, 1), _constant(node, 2)
    if scale is None or shift is None or len(site.operands[0].axes) != 4:
        raise NoForm("a normalization with computed parameters, or not over two axes")
    x = site.operand(0, NHWC)
    small = (x.shape[0], 1, 1, x.shape[3])
    axes, none = site.integers([1, 2]), {"fusedActivationFunction": "NONE"}

    def channel(values: Any) -> Tensor:
        return site.constant(np.asarray(values, np.float32).reshape(1, 1, 1, -1))

    mean = site.apply("MEAN", [x, axes], small, keepDims=True)
    centred = site.apply("SUB", [x, mean], x.shape, **none)
    square = site.apply("MUL", [centred, centred], x.shape, **none)
    variance = site.apply("MEAN", [square, axes], small, keepDims=True)
    epsilon = channel([attribute(node, "epsilon", 1e-5)])
    inverse = site.apply("RSQRT", [site.apply("ADD", [variance, epsilon], small, **none)], small)
    factor = site.apply("MUL", [inverse, channel(scale)], small, **none)
    scaled = site.apply("MUL", [centred, factor], x.shape, **none)
    site.give(site.apply("ADD", [scaled, channel(shift)], x.shape, **none), NHWC)


# operator -> its form in float; what is not here is read as an integer operation would be
FLOATS: Mapping[str, Callable[[Site, ir.Node], None]] = {
    **dict.fromkeys(ACTIVATIONS, _activation),
    **dict.fromkeys(_BINARY, _binary),
    "Clip": _clip,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "HardSwish": _hard_swish,
    "InstanceNormalization": _instance_norm,
    "MatMul": _matmul,
    "Relu": _plain("RELU"),
    "Softmax": _softmax,
    "Sqrt": _plain("SQRT"),
}

"""Which nodes may run on integers: one check per operator, each answering with the reason why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...ir.graph import attribute, constant, is_constant
from ...targets.target import Target

__all__ = [
    "ANCHORS",
    "biased",
    "data_inputs",
    "has_weights",
    "is_product",
    "weight_axis",
    "why_not_integer",
    "why_not_matrix",
]

# operators with weights: integer arithmetic pays for itself there; the others follow where their neighbours are integer
ANCHORS = frozenset({"Conv", "Gemm", "MatMul"})
_TWO_OPERANDS = frozenset({"Add", "Sub", "Mul"})


def has_weights(node: ir.Node) -> bool:
    """One operand is a constant weight; a MatMul of two activations has none."""
    return node.op_type in (*ANCHORS, "ConvTranspose") and is_constant(node.inputs[1])


def is_product(node: ir.Node) -> bool:
    """Both factors of a MatMul are computed."""
    return node.op_type == "MatMul" and not any(is_constant(v) for v in node.inputs)


def biased(node: ir.Node) -> ir.Node | None:
    """The MatMul with constant weights whose bias an Add is; None for any other node."""
    if node.op_type != "Add" or len(node.inputs) != 2:
        return None
    for value, other in (node.inputs, reversed(node.inputs)):
        product, bias = None if value is None else value.producer(), constant(other)
        if product is None or value is None or bias is None or product.op_type != "MatMul" or not has_weights(product):
            continue
        weight = constant(product.inputs[1])
        columns = None if weight is None or weight.ndim != 2 else weight.shape[1]
        alone = len(value.uses()) == 1 and not value.is_graph_output()
        return product if alone and bias.shape == (columns,) and np.isfinite(bias).all() else None
    return None


def data_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs of a node that would hold integers: not weights, bounds, axes or shapes."""
    if node.op_type == "Concat":
        chosen: Sequence[ir.Value | None] = node.inputs
    elif node.op_type in _TWO_OPERANDS or (node.op_type == "MatMul" and not has_weights(node)):
        chosen = node.inputs[:2]
    else:
        chosen = node.inputs[:1]
    return [v for v in chosen if v is not None and not (node.op_type in _TWO_OPERANDS and is_constant(v))]


def weight_axis(node: ir.Node) -> int:
    """The output-channel axis of a node's weights."""
    if node.op_type == "MatMul":
        return 1
    return 0 if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)) else 1


def _from_dequantize(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def _weights(node: ir.Node) -> str:
    weight = constant(node.inputs[1])
    if weight is None:
        return "weights are already quantized" if _from_dequantize(node.inputs[1]) else "weights are not constant"
    if weight.dtype != np.float32:
        return f"weights are {weight.dtype}, not float32"
    if not np.isfinite(weight).all():
        return "weights hold NaN or infinity"
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = constant(node.inputs[2])
        if bias is None:
            return "bias is not constant"
        if not np.isfinite(bias).all():
            return "bias holds NaN or infinity"
    return ""


def _gemm(node: ir.Node) -> str:
    for name, wanted in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)):
        if attribute(node, name, wanted) != wanted:
            return f"{name} is {attribute(node, name)}"
    reason = _weights(node)
    if not reason and len(node.inputs) > 2 and node.inputs[2] is not None:
        weight, bias = constant(node.inputs[1]), constant(node.inputs[2])
        assert weight is not None and bias is not None
        if bias.size != 1 and bias.shape[-1:] != (weight.shape[weight_axis(node)],):
            return "bias is not one number per output channel"
        if bias.size != bias.shape[-1]:
            return "bias is not one number per output channel"
    return reason


def _conv_transpose(node: ir.Node) -> str:
    if attribute(node, "group", 1) != 1:
        return "transposed convolution in groups"
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET" or attribute(node, "output_shape") is not None:
        return "the padding of a transposed convolution is implicit"
    return _weights(node)


def _matmul(node: ir.Node) -> str:
    reason = _weights(node)
    if reason:
        return reason
    weight = constant(node.inputs[1])
    assert weight is not None
    return "" if weight.ndim == 2 else f"weights have {weight.ndim} dimensions"


def _product(node: ir.Node) -> str:
    ranks = [0 if v is None or v.shape is None else len(v.shape) for v in node.inputs]
    return "" if min(ranks) >= 2 else "a factor has no known rows and columns"


def _elementwise(node: ir.Node) -> str:
    return "one operand is a constant" if any(is_constant(v) for v in node.inputs) and not biased(node) else ""


def _with_constant(node: ir.Node) -> str:
    """Of a sum or product with a constant: a finite number, or one for each channel (of an image) or column."""
    numbers = next((array for v in node.inputs if (array := constant(v)) is not None), None)
    if numbers is None:
        return ""
    if not np.isfinite(numbers).all():
        return "the constant holds NaN or infinity"
    shape = list(node.outputs[0].shape or ())
    wide = (1,) * (len(shape) - numbers.ndim) + numbers.shape
    axes = [a for a, n in enumerate(wide) if n > 1]
    along = axes == [len(shape) - 1] or (len(shape) == 4 and axes == [1])
    return "" if not axes or (along and wide[axes[0]] == shape[axes[0]]) else "the constant differs along other axes"


def _clip(node: ir.Node) -> str:
    bounds = [v for v in node.inputs[1:] if v is not None]
    return "" if all(is_constant(v) for v in bounds) else "bounds are not constant"


def _pow(node: ir.Node) -> str:
    exponent = constant(node.inputs[1])
    inverse_root = exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == -0.5
    return "" if inverse_root else "of the powers only x^−0.5 has an integer form"


def _reduce(node: ir.Node) -> str:
    axes = [v for v in node.inputs[1:] if v is not None]
    return "" if all(is_constant(v) for v in axes) else "axes are not constant"


def _pad(node: ir.Node) -> str:
    mode = attribute(node, "mode", "constant")
    filling = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    filling = np.asarray(attribute(node, "value", 0.0)) if filling is None else filling
    if mode == "constant" and np.any(np.asarray(filling, np.float64) != 0):
        return "pads with a value other than 0"
    return "" if len(node.inputs) < 2 or is_constant(node.inputs[1]) else "pads are not constant"


def _resize(node: ir.Node) -> str:
    if (mode := attribute(node, "mode", "nearest")) not in ("nearest", "linear"):
        return f"mode {mode}"
    sizes = [v for v in node.inputs[1:] if v is not None]
    return "" if all(is_constant(v) for v in sizes) else "scales or sizes are not constant"


def _one_output(node: ir.Node) -> str:
    extra = [v for v in node.outputs[1:] if v.uses() or v.is_graph_output()]
    return "its second output (indices) is used" if extra else ""


_CHECKS: Mapping[str, Callable[[ir.Node], str]] = {
    "Conv": _weights,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _elementwise,
    "Sub": _elementwise,
    "Mul": _elementwise,
    "Clip": _clip,
    "ReduceMean": _reduce,
    "Pad": _pad,
    "Pow": _pow,
    "MaxPool": _one_output,
    "Resize": _resize,
}


def why_not_matrix(node: ir.Node) -> str:
    """The reason why an anchor is not x·W + b with known, finite float32 W and b; empty when it is."""
    return _CHECKS[node.op_type](node)


def why_not_integer(node: ir.Node, target: Target) -> str:
    """The reason why the target cannot run this node on integers; empty when it can."""
    if node.domain not in ("", "ai.onnx"):
        return f"operator of domain {node.domain}"
    if node.op_type not in target.integer_ops and node.op_type not in target.movement_ops:
        return f"{target} has no integer kernel for {node.op_type}"
    for value in (*data_inputs(node), *node.outputs[:1]):
        if value.dtype is not None and value.dtype != ir.DataType.FLOAT:
            return f"works on {value.dtype.name.lower()}, not float32"
        if _from_dequantize(value):
            return "its input is already quantized"
    rank = len(node.inputs[0].shape or ()) if node.inputs and node.inputs[0] is not None else 0
    if node.op_type == "Conv" and rank > 4:
        return "no target multiplies integers of three dimensions in vectors"
    if is_product(node) and "activation-products" in target.features:
        return _product(node)
    check = _CHECKS.get(node.op_type)
    linear = node.op_type == "Resize" and attribute(node, "mode", "nearest") == "linear"
    if linear and "linear-resize" not in target.features:
        return f"{target} has no integer kernel for a linear Resize"
    if node.op_type in _TWO_OPERANDS and "constant-operands" in target.features:
        check = _with_constant
    return check(node) if check else ""

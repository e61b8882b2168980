"""Scaling, shifting and normalising by constants into the weights of the operator after them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import Array, attribute, constant, is_constant, only_consumer
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .affine import Vector, per_channel
from .edit import Editor, become, standard_nodes
from .fold_bn import is_training, scale_and_shift

__all__ = ["FoldAffineBefore", "scale_input_channels"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class _Affine:
    """x and the numbers of a·x + b, per input channel; None for a = 1 and b = 0."""

    x: ir.Value
    a: Vector | None
    b: Vector | None


@dataclass(frozen=True)
class FoldAffineBefore(Pass):
    """op(a·x + b, W, c)  ⇒  op(x, W·a, c + W·b),  op: Conv, Gemm, MatMul

    a·x + b: Mul, Div, Add or Sub with constants per channel, or a BatchNormalization, whose running statistics stay
    as metadata of x. A shift goes through a convolution only where it pads nothing: zeros are not shifted.
    """

    name: ClassVar[str] = "fold-affine-before"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        edit = Editor(model)
        for node in standard_nodes(model):
            if node.op_type not in ("Conv", "Gemm", "MatMul") or attribute(node, "transA", 0):
                continue
            reason = _fold(node, shapes, edit, context)
            if reason:
                context.record.skip(node, reason)


def _fold(node: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> str:
    x, w = node.inputs[:2]
    producer = x.producer() if x is not None else None
    shape = shapes.shape(x)
    if x is None or w is None or producer is None or shape is None or len(shape) < 2:
        return ""
    channels = shape[1] if node.op_type == "Conv" else shape[-1]
    affine = _affine(producer, shapes, 1 if node.op_type == "Conv" else len(shape) - 1, channels)
    if affine is None:
        return ""
    if only_consumer(x) is not node or producer.graph is not node.graph:
        return f"the {producer.op_type} before it has other readers or is in another graph"
    if not is_constant(w) or w.dtype not in _FLOATS or (node.op_type == "MatMul" and shapes.rank(w) != 2):
        return "its weights are not a constant of floats"
    if any(v is not None and not np.all(np.isfinite(v)) for v in (affine.a, affine.b)):
        return "the constant is not finite"
    c = node.inputs[2] if len(node.inputs) > 2 else None
    op_type, inputs = node.op_type, [affine.x, w, *node.inputs[2:]]
    attributes: dict[str, Any] = dict(node.attributes)
    if affine.b is not None:
        if _pads(node):
            return "the convolution pads with zeros, which the shift does not reach"
        if c is not None and not is_constant(c):
            return "its bias is not constant"
        if op_type == "MatMul" and len(shape) != 2:
            return "a MatMul of this rank has no bias"
        op_type = "Gemm" if op_type == "MatMul" else op_type
        inputs = [affine.x, w, _bias(node, w, c, affine.b, edit)]
        attributes.pop("beta", None)
    if context.record.change(node, f"{producer.op_type} into its weights"):
        if producer.op_type == "BatchNormalization":
            _keep_statistics(producer, affine.x)
        if affine.a is not None:
            inputs[1] = _weight(node, w, affine.a, edit)
        become(node, op_type, inputs, attributes)
    return ""


def _keep_statistics(norm: ir.Node, x: ir.Value) -> None:
    """The running mean and variance are those of the value that is normalised."""
    mean, variance = constant(norm.inputs[3]), constant(norm.inputs[4])
    if mean is not None and variance is not None and metadata.get(x, metadata.STATISTICS) is None:
        fact = {"mean": mean, "std": np.sqrt(variance), "axis": 1, "source": "batch-norm"}
        metadata.put(x, metadata.STATISTICS, fact)


def _affine(node: ir.Node, shapes: Shapes, axis: int, channels: Any) -> _Affine | None:
    shape = shapes.shape(node.outputs[0])
    if shape is None or not isinstance(channels, int) or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "BatchNormalization":
        arrays = [constant(v) for v in node.inputs[1:5]]
        if axis != 1 or is_training(node, shapes.version) or any(a is None for a in arrays) or node.inputs[0] is None:
            return None
        scale, shift, mean, variance = arrays
        a, b = scale_and_shift(scale, shift, mean, variance, attribute(node, "epsilon", 1e-5))
        return _Affine(node.inputs[0], a, b)
    if node.op_type not in ("Mul", "Div", "Add", "Sub"):
        return None
    x, c = node.inputs
    if is_constant(x) and node.op_type in ("Mul", "Add"):
        x, c = c, x
    array = constant(c, limit=channels)
    if x is None or array is None or is_constant(x) or shapes.shape(x) != shape or x.dtype not in _FLOATS:
        return None
    numbers = per_channel(array, len(shape), axis, channels)
    if numbers is None or (node.op_type == "Div" and not np.all(numbers)):
        return None
    if node.op_type in ("Mul", "Div"):
        return _Affine(x, numbers if node.op_type == "Mul" else 1.0 / numbers, None)
    return _Affine(x, None, numbers if node.op_type == "Add" else -numbers)


def _pads(node: ir.Node) -> bool:
    pads: Any = attribute(node, "pads", ())
    return node.op_type == "Conv" and (any(pads) or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"))


def scale_input_channels(op_type: str, w: Array, a: Vector, group: int, transposed: bool) -> Array:
    """The weights with what multiplies input channel c scaled by a[c], in float64."""
    if op_type == "Conv":
        grouped = w.reshape(group, w.shape[0] // group, *w.shape[1:]).astype(np.float64)
        scaled: Array = grouped * a.reshape(group, 1, -1, *(1,) * (w.ndim - 2))
        return scaled.reshape(w.shape)
    return w.astype(np.float64) * (a if transposed else a[:, None])


def _weight(node: ir.Node, w: ir.Value, a: Vector, edit: Editor) -> ir.Value:
    tensor, op_type = w.const_value, node.op_type
    assert tensor is not None
    group, transposed = _layout(node)
    dtype = tensor.dtype.numpy()
    shape = [int(d) for d in tensor.shape]  # type: ignore[arg-type]

    def compute() -> Array:
        return scale_input_channels(op_type, tensor.numpy(), a, group, transposed).astype(dtype)

    return edit.computed(str(w.name), tensor.dtype, shape, compute)


def _bias(node: ir.Node, w: ir.Value, c: ir.Value | None, b: Vector, edit: Editor) -> ir.Value:
    """c + W·b: what the shift adds to every output channel."""
    assert w.const_value is not None
    array = w.const_value.numpy()
    group, transposed = _layout(node)
    products = scale_input_channels(node.op_type, array, b, group, transposed)
    if node.op_type == "Conv":
        total = products.reshape(array.shape[0], -1).sum(axis=1)
    else:
        total = products.sum(axis=1 if transposed else 0) * float(attribute(node, "alpha", 1.0))  # type: ignore[arg-type]
    if c is not None and c.const_value is not None:
        beta: Any = attribute(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
        total = total + c.const_value.numpy().astype(np.float64) * beta
    return edit.constant(f"{w.name}.bias" if c is None else str(c.name), total.astype(array.dtype))


def _layout(node: ir.Node) -> tuple[int, bool]:
    group: Any = attribute(node, "group", 1)
    return int(group), bool(attribute(node, "transB", 0))

"""Operators on constants too large for ordinary folding: computed when the result is read, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import Array, attribute, is_constant
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import Editor, bypass, integers, standard_nodes

__all__ = ["FoldWeights"]

_SHARED_LIMIT = 1 << 20  # bytes; a larger constant with other readers would be stored twice

Compute = Callable[[Sequence[Array]], Array]


@dataclass(frozen=True)
class FoldWeights(Pass):
    """op(W, …)  ⇒  W′  for data movement and arithmetic on constants, where the result is no larger than they are"""

    name: ClassVar[str] = "fold-weights"

    def run(self, model: ir.Model, context: Context) -> None:
        candidates = [n for n in model.graph.all_nodes() if n.op_type in _BUILDERS and _all_constant(n)]
        if not candidates:
            return
        shapes, edit = infer(model), Editor(model)
        for node in standard_nodes(model):
            if node.op_type not in _BUILDERS:
                continue
            if _all_constant(node):
                _fold(node, shapes, edit, context)


def _all_constant(node: ir.Node) -> bool:
    return bool(node.inputs) and all(is_constant(v) for v in node.inputs if v is not None)


def _fold(node: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    output = node.outputs[0]
    shape = shapes.shape(output)
    compute = _BUILDERS[node.op_type](node, shapes)
    if compute is None or shape is None or output.dtype is None or not all(isinstance(s, int) for s in shape):
        context.record.skip(node, "its attributes or the shape of its result are not known")
        return
    if output.is_graph_output():
        context.record.skip(node, "a graph output must be computed by a node of its graph")
        return
    tensors = [v.const_value for v in node.inputs if v is not None and v.const_value is not None]
    size = int(np.prod(shape, dtype=np.int64)) * output.dtype.itemsize  # type: ignore[arg-type]
    if size > max(sum(t.nbytes for t in tensors), _SHARED_LIMIT):
        context.record.skip(node, "the result is larger than the constants it is made of")
        return
    large = [v for v in node.inputs if v is not None and v.const_value is not None]
    if any(
        v.const_value.nbytes > _SHARED_LIMIT and len(list(v.uses())) > 1 for v in large if v.const_value is not None
    ):
        context.record.skip(node, "a large constant has other readers and would be stored twice")
        return
    if context.record.change(node, f"{node.op_type} of constants, {size} bytes"):
        dtype = output.dtype.numpy()
        evaluate = compute
        new = edit.computed(
            str(output.name),
            output.dtype,
            [int(s) for s in shape],  # type: ignore[arg-type]
            lambda: np.asarray(evaluate([t.numpy() for t in tensors])).astype(dtype, copy=False),
        )
        bypass(output, new)


Builder = Callable[[ir.Node, Shapes], "Compute | None"]


def _transpose(node: ir.Node, _shapes: Shapes) -> Compute | None:
    perm: Any = attribute(node, "perm")
    return lambda arrays: np.transpose(arrays[0], perm)


def _to_shape(node: ir.Node, shapes: Shapes) -> Compute | None:
    shape = shapes.shape(node.outputs[0])
    return None if shape is None else lambda arrays: arrays[0].reshape(shape)  # type: ignore[arg-type]


def _concat(node: ir.Node, _shapes: Shapes) -> Compute | None:
    axis: Any = attribute(node, "axis", 1)
    return lambda arrays: np.concatenate(arrays, axis=axis)


def _slice(node: ir.Node, shapes: Shapes) -> Compute | None:
    starts, ends = integers(node, 1, "starts", shapes), integers(node, 2, "ends", shapes)
    if starts is None or ends is None:
        return None
    axes = integers(node, 3, "axes", shapes) or list(range(len(starts)))
    steps = integers(node, 4, "steps", shapes) or [1] * len(starts)
    if min(steps) < 1:
        return None

    def compute(arrays: Sequence[Array]) -> Array:
        window = [slice(None)] * arrays[0].ndim
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            window[axis] = slice(start, end, step)
        return arrays[0][tuple(window)]

    return compute


def _gather(node: ir.Node, _shapes: Shapes) -> Compute | None:
    axis: Any = attribute(node, "axis", 0)
    return lambda arrays: np.take(arrays[0], arrays[1].astype(np.int64), axis=axis)


def _cast(node: ir.Node, _shapes: Shapes) -> Compute | None:
    x, y = node.inputs[0], node.outputs[0]
    floats = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
    if x is None or x.dtype not in floats or y.dtype not in floats:
        return None  # conversions between integers and floats saturate or wrap; small ones are folded elsewhere
    dtype = y.dtype.numpy()
    return lambda arrays: arrays[0].astype(dtype)


def _arithmetic(function: Callable[..., Any]) -> Builder:
    def build(node: ir.Node, _shapes: Shapes) -> Compute | None:
        dtype = node.outputs[0].dtype
        if dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
            return None
        return lambda arrays: function(*arrays)

    return build


_BUILDERS: dict[str, Builder] = {
    "Add": _arithmetic(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _arithmetic(np.divide),
    "Flatten": _to_shape,
    "Gather": _gather,
    "Mul": _arithmetic(np.multiply),
    "Neg": _arithmetic(np.negative),
    "Reshape": _to_shape,
    "Slice": _slice,
    "Sqrt": _arithmetic(np.sqrt),
    "Squeeze": _to_shape,
    "Sub": _arithmetic(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _to_shape,
}

"""Reductions of reductions, sums divided by their size, reductions computed twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from ...ir.dimension import product
from ...ir.graph import attribute, constant, only_consumer
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import Editor, become, bypass, bypass_hindrance, integers, standard_nodes

__all__ = ["MergeReductions"]

_NESTING = {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"}


@dataclass(frozen=True)
class MergeReductions(Pass):
    """R(R(x, a), b) ⇒ R(x, a∪b);  Sum(x, a) / |a| ⇒ Mean(x, a);  R(x, a){keepdims} ▸ Squeeze ⇒ R(x, a){keepdims=0}

    |a|: the number of summed elements, a constant or computed from the shape of x. Equal reductions are shared
    whether their axes count from the front or the end.
    """

    name: ClassVar[str] = "merge-reductions"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        edit = Editor(model)
        for node in standard_nodes(model):
            if node.op_type in _NESTING:
                _merge(node, shapes, edit, context)
            elif node.op_type == "Div":
                _mean(node, shapes, edit, context)
            elif node.op_type in ("Squeeze", "Unsqueeze"):
                _keep(node, shapes, edit, context)
        _share(model.graph, shapes, context)


def _axes(node: ir.Node, shapes: Shapes) -> tuple[int, ...] | None:
    """The reduced axes, counted from the front and in order; None when they are not known."""
    rank = shapes.rank(node.inputs[0])
    if rank is None or node.domain not in ("", "ai.onnx"):
        return None
    given = len(node.inputs) > 1 and node.inputs[1] is not None
    axes = integers(node, 1, "axes", shapes) if given or "axes" in node.attributes else []
    if axes is None:
        return None
    if not axes:
        return () if attribute(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted({a % rank for a in axes}))


def _reduce(node: ir.Node, op: str, x: ir.Value | None, axes: Any, keep: int, edit: Editor) -> None:
    inputs, attributes = edit.axes(op, sorted(axes), str(node.outputs[0].name))
    become(node, op, [x, *inputs], {**attributes, "keepdims": keep})


def _merge(node: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    if before is None or before.op_type != node.op_type:
        return
    inner, outer = _axes(before, shapes), _axes(node, shapes)
    keep = attribute(node, "keepdims", 1)
    if not inner or not outer or attribute(before, "keepdims", 1) != keep:
        context.record.skip(node, "the axes are not known, or only one of the two keeps them")
        return
    if only_consumer(before.outputs[0]) is not node:
        context.record.skip(node, "the reduction before it has other readers")
        return
    if not keep:
        rank = shapes.rank(before.inputs[0]) or 0
        left = [a for a in range(rank) if a not in inner]
        outer = tuple(left[a] for a in outer)
    axes = sorted({*inner, *outer})
    if context.record.change(node, f"axes {axes} at once"):
        _reduce(node, node.op_type, before.inputs[0], axes, int(bool(keep)), edit)


def _mean(node: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    total, count = node.inputs
    before = total.producer() if total is not None else None
    if before is None or before.op_type != "ReduceSum" or before.domain not in ("", "ai.onnx") or total is None:
        return
    axes, x = _axes(before, shapes), shapes.shape(before.inputs[0])
    if not axes or x is None or shapes.shape(total) != shapes.shape(node.outputs[0]):
        return
    divisor = _number(count, shapes)
    if divisor is None or divisor != product(tuple(x[a] for a in axes)):
        context.record.skip(node, "the divisor is not known to be the number of summed elements")
        return
    if total.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        context.record.skip(node, "integers and half floats divide differently")
        return
    if context.record.change(node, f"mean over axes {list(axes)}"):
        _reduce(node, "ReduceMean", before.inputs[0], axes, int(bool(attribute(before, "keepdims", 1))), edit)


def _number(value: ir.Value | None, shapes: Shapes) -> Any:
    """A single number that is constant or computed from sizes."""
    contents = shapes.contents(value)
    if contents is not None and contents.size == 1:
        return contents.reshape(-1)[0]
    array = constant(value, limit=1)
    number = None if array is None or array.size != 1 else float(array.reshape(-1)[0])
    return int(number) if number is not None and number.is_integer() else None


def _keep(node: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    """Squeeze of the axes a reduction kept, Unsqueeze of those it dropped: the reduction's own keepdims."""
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    if before is None or not before.op_type.startswith("Reduce") or not before.inputs:
        return
    keep = int(node.op_type == "Unsqueeze")
    axes, rank = _axes(before, shapes), shapes.rank(before.inputs[0])
    given = integers(node, 1, "axes", shapes)
    if rank is None or axes is None or given is None or bool(attribute(before, "keepdims", 1)) == bool(keep):
        return
    if tuple(sorted(a % rank for a in given)) != axes:
        context.record.skip(node, "it does not name the axes that are reduced")
        return
    if only_consumer(before.outputs[0]) is not node:
        context.record.skip(node, "the reduction before it has other readers")
        return
    if context.record.change(node, f"{before.op_type} with keepdims={keep}"):
        _reduce(node, before.op_type, before.inputs[0], axes, keep, edit)


def _share(graph: ir.Graph, shapes: Shapes, context: Context) -> None:
    known: dict[object, ir.Node] = {}
    for node in list(graph):
        if node.op_type not in _NESTING or not node.inputs:
            continue
        axes = _axes(node, shapes)
        if axes is None:
            continue
        key = (node.op_type, node.inputs[0], axes, bool(attribute(node, "keepdims", 1)))
        first = known.setdefault(key, node)
        if first is node:
            continue
        reason = bypass_hindrance(node.outputs[0], first.outputs[0])
        if reason:
            context.record.skip(node, reason)
        elif context.record.change(node, f"the same as {first.name}"):
            bypass(node.outputs[0], first.outputs[0])

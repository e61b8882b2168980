"""Transposes that undo, follow or wait for one another: fewer of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import attribute, constant, is_constant, only_consumer
from ...ir.shape_question import Shape
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import Editor, become, bypass, bypass_hindrance, integers, standard_nodes

__all__ = ["MergeTransposes", "expand_permutation"]

_UNARY = {
    "Abs",
    "Cast",
    "Ceil",
    "Clip",
    "Cos",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tanh",
}
_BINARY = {"Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", "PRelu"}
_REDUCTIONS = {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"}
_LARGEST = 1 << 16  # elements of a constant that is permuted
_FAR = 16  # nodes that a transpose may move through to meet another one


@dataclass(frozen=True)
class MergeTransposes(Pass):
    """(xᵖ)^q ⇒ x^(p∘q);  reshape(reshape(x)ᵖ) ⇒ x^q;  f(xᵖ, yᵖ) ⇒ f(x, y)ᵖ;  reduce(xᵖ) ⇒ reduce(x)

    f is element-wise, its constants are permuted; a single transposed operand moves only where each of its readers
    leads to another Transpose, or to a reduction, further down.
    """

    name: ClassVar[str] = "merge-transposes"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        edit = Editor(model)
        for node in standard_nodes(model):
            if node.op_type == "Transpose":
                _compose(node, context)
            elif node.op_type == "Reshape":
                _regroup(node, shapes, context)
            elif node.op_type in _UNARY | _BINARY:
                _sink(node, shapes, edit, context)
            elif node.op_type in _REDUCTIONS:
                _reduce(node, shapes, edit, context)


def _permutation(value: ir.Value | None) -> tuple[int, ...] | None:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Transpose" or node.domain not in ("", "ai.onnx"):
        return None
    perm: Any = attribute(node, "perm")
    return None if perm is None else tuple(perm)


def _before(value: ir.Value | None) -> ir.Value | None:
    node = value.producer() if value is not None else None
    return None if node is None else node.inputs[0]


def _compose(node: ir.Node, context: Context) -> None:
    inner, outer = _permutation(node.inputs[0]), _permutation(node.outputs[0])
    x = _before(node.inputs[0])
    if inner is None or outer is None or x is None:
        return
    perm = [inner[p] for p in outer]
    if perm != sorted(perm):
        if context.record.change(node, f"{list(inner)} ▸ {list(outer)} as {perm}"):
            become(node, "Transpose", [x], {"perm": perm})
        return
    reason = bypass_hindrance(node.outputs[0], x)
    if reason:
        context.record.skip(node, reason)
    elif context.record.change(node, f"{list(outer)} undoes {list(inner)}"):
        bypass(node.outputs[0], x)


def _regroup(node: ir.Node, shapes: Shapes, context: Context) -> None:
    """Axes merged, permuted as groups and split again: one transpose of the axes themselves."""
    perm, middle = _permutation(node.inputs[0]), _before(node.inputs[0])
    first = middle.producer() if middle is not None else None
    if perm is None or first is None or first.op_type != "Reshape" or middle is None:
        return
    x, y = shapes.shape(first.inputs[0]), shapes.shape(node.outputs[0])
    grouped = shapes.shape(middle)
    if x is None or y is None or grouped is None:
        return
    full = expand_permutation(x, grouped, perm, y)
    if full is None:
        context.record.skip(node, "the reshapes around the transpose do not split what they merge")
    elif context.record.change(node, f"Reshape ▸ Transpose ▸ Reshape as Transpose {full}"):
        become(node, "Transpose", [first.inputs[0]], {"perm": full})


def expand_permutation(x: Shape, grouped: Shape, perm: Sequence[int], y: Shape) -> list[int] | None:
    """The permutation of the axes of x that equals reshape to `grouped`, permute and reshape to y, if there is one."""
    groups: list[list[int]] = []
    axis = 0
    for size in grouped:
        group: list[int] = []
        total: Any = 1
        while axis < len(x) and (total != size or not group):
            total = total * x[axis]
            group.append(axis)
            axis += 1
        if total != size:
            return None
        groups.append(group)
    full = [axis for p in perm for axis in groups[p]] if axis == len(x) else []
    return full if len(full) == len(x) and tuple(x[a] for a in full) == tuple(y) else None


def _sink(node: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    """f(xᵖ, yᵖ, c) ⇒ f(x, y, c′)ᵖ with c′ᵖ = c"""
    moving = [v for v in node.inputs if v is not None and not is_constant(v)]
    perms = {_permutation(v) for v in moving}
    perm = perms.pop() if len(perms) == 1 else None
    if perm is None or any(only_consumer(v) is not node or not _beside(v, node) for v in set(moving)):
        return
    if any(shapes.rank(v) != len(perm) for v in [*moving, *node.outputs]) or len(node.outputs) != 1:
        return
    if len(set(moving)) == 1 and not _transposed_later(node):
        return
    constants = [v for v in node.inputs if v is not None and is_constant(v)]
    if any(constant(v, _LARGEST) is None or len(v.shape or ()) > len(perm) for v in constants):
        return
    if not context.record.change(node, f"ahead of Transpose {list(perm)}"):
        return
    output = node.outputs[0]
    inputs = [_before(v) if v in moving else _permuted(v, perm, edit) for v in node.inputs]
    inner = edit.insert(node, node.op_type, inputs, dict(node.attributes), f"{output.name}.transposed")
    assert inner.producer() is not None
    inner.dtype = output.dtype  # type: ignore[assignment]
    shapes.visit(inner.producer())  # type: ignore[arg-type]
    become(node, "Transpose", [inner], {"perm": list(perm)})


def _beside(value: ir.Value, node: ir.Node) -> bool:
    """True for a value made in the graph of the node, not in one around it that may run less often."""
    producer = value.producer()
    return producer is not None and producer.graph is node.graph


def _permuted(value: ir.Value | None, perm: Sequence[int], edit: Editor) -> ir.Value | None:
    """The constant that, permuted, is what the operand is beside a permuted one; a number is itself."""
    array = constant(value)
    if value is None or array is None or array.size == 1:
        return value
    wide = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
    return edit.constant(f"{value.name}.permuted", np.transpose(wide, np.argsort(perm)))


def _transposed_later(node: ir.Node, left: int = _FAR) -> bool:
    """Every reader is a Transpose, a reduction that drops axes, or element-wise and leads to such."""
    value = node.outputs[0]
    if not left or len(node.outputs) != 1 or value.is_graph_output() or not value.uses():
        return False
    return all(_ends(use.node) or _passes_on(use.node, left - 1) for use in value.uses())


def _ends(reader: ir.Node) -> bool:
    return reader.op_type == "Transpose" or (reader.op_type in _REDUCTIONS and not attribute(reader, "keepdims", 1))


def _passes_on(reader: ir.Node, left: int) -> bool:
    """Element-wise, its other operands constants or what may come from behind a Transpose as well."""
    if reader.op_type not in _UNARY | _BINARY:
        return False
    kinds = _UNARY | _BINARY | {"Transpose"}
    known = (v is None or is_constant(v) or ((made := v.producer()) and made.op_type in kinds) for v in reader.inputs)
    return all(known) and _transposed_later(reader, left)


def _reduce(node: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    """A reduction that drops axes does not see in which order they were."""
    perm, axes = _permutation(node.inputs[0]), integers(node, 1, "axes", shapes)
    if perm is None or not axes or attribute(node, "keepdims", 1):
        return
    dropped = {a % len(perm) for a in axes}
    left = [p for i, p in enumerate(perm) if i not in dropped]
    if left != sorted(left):
        context.record.skip(node, "the axes that are left are in another order")
        return
    if context.record.change(node, "on the axes before the Transpose"):
        inputs, attributes = edit.axes(node.op_type, sorted(perm[a] for a in dropped), str(node.outputs[0].name))
        become(node, node.op_type, [_before(node.inputs[0]), *inputs], {**attributes, "keepdims": 0})

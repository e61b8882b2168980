"""Concatenations of concatenations, and of the pieces that a Split has just made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from ...ir.graph import attribute, only_consumer
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import become, bypass, bypass_hindrance, standard_nodes

__all__ = ["MergeConcats"]


@dataclass(frozen=True)
class MergeConcats(Pass):
    """Concat(Concat(a, b), c)  ⇒  Concat(a, b, c);  Concat(Split(x))  ⇒  x;  on one axis"""

    name: ClassVar[str] = "merge-concats"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        for node in standard_nodes(model):
            if _is_concat(node):
                if _is_split(node, shapes):
                    _rejoin(node, context)
                else:
                    _flatten(node, shapes, context)


def _is_concat(node: ir.Node | None) -> bool:
    return node is not None and node.op_type == "Concat" and node.domain in ("", "ai.onnx")


def _axis(node: ir.Node, shapes: Shapes, default: int) -> int | None:
    """The axis, counted from the front."""
    rank, axis = shapes.rank(node.inputs[0]), attribute(node, "axis", default)
    return int(axis) % rank if rank and isinstance(axis, int) else None


def _flatten(node: ir.Node, shapes: Shapes, context: Context) -> None:
    inputs: list[ir.Value | None] = []
    merged = 0
    for value in node.inputs:
        before = value.producer() if value is not None else None
        if value is None or before is None or not _is_concat(before) or not _same_axis(before, node, shapes):
            inputs.append(value)
        elif only_consumer(value) is not node:
            context.record.skip(before, "it has other readers than the Concat after it")
            inputs.append(value)
        else:
            inputs += before.inputs
            merged += 1
    if merged and context.record.change(node, f"{len(inputs)} inputs at once"):
        axis: Any = attribute(node, "axis", 1)
        become(node, "Concat", inputs, {"axis": axis})


def _same_axis(a: ir.Node, b: ir.Node, shapes: Shapes) -> bool:
    first, second = (_axis(n, shapes, 0 if n.op_type == "Split" else 1) for n in (a, b))
    return first is not None and first == second


def _is_split(node: ir.Node, shapes: Shapes) -> bool:
    """True when the inputs are all outputs of one Split, in order, on the same axis."""
    first = node.inputs[0].producer() if node.inputs[0] is not None else None
    if first is None or first.op_type != "Split" or first.domain not in ("", "ai.onnx"):
        return False
    if len(first.outputs) != len(node.inputs) or not _same_axis(first, node, shapes):
        return False
    return all(a is b for a, b in zip(first.outputs, node.inputs, strict=True))


def _rejoin(node: ir.Node, context: Context) -> None:
    assert node.inputs[0] is not None
    split = node.inputs[0].producer()
    assert split is not None and split.inputs[0] is not None
    reason = bypass_hindrance(node.outputs[0], split.inputs[0])
    if reason:
        context.record.skip(node, reason)
    elif context.record.change(node, "the pieces of one Split, in order"):
        bypass(node.outputs[0], split.inputs[0])

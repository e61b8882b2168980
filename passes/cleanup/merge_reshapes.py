"""Chains of Reshape, Squeeze, Unsqueeze, Flatten and transposes of size-1 axes: nothing, or one Reshape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from ...ir.graph import attribute
from ...ir.shape_question import Shape
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import Editor, become, bypass, bypass_hindrance, standard_nodes
from .fold_shapes import reshape_target

__all__ = ["MergeReshapes", "keeps_order"]

_RESHAPING = {"Reshape", "Squeeze", "Unsqueeze", "Flatten"}


@dataclass(frozen=True)
class MergeReshapes(Pass):
    """reshape₂(reshape₁(x))  ⇒  x where the shapes are equal, else Reshape(x, const) where one constant says it"""

    name: ClassVar[str] = "merge-reshapes"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        edit = Editor(model)
        for node in standard_nodes(model):
            if not _reshapes(node, shapes):
                continue
            before = node.inputs[0].producer() if node.inputs[0] is not None else None
            if before is not None and _reshapes(before, shapes):
                _merge(node, before, shapes, edit, context)
            elif node.op_type == "Transpose" and shapes.shape(node.inputs[0]) == shapes.shape(node.outputs[0]):
                _remove(node, node.inputs[0], context)


def _merge(node: ir.Node, before: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    x = before.inputs[0]
    old, new = shapes.shape(x), shapes.shape(node.outputs[0])
    if x is None or old is None or new is None:
        context.record.skip(node, "the shapes are not known")
        return
    if old == new:
        _remove(node, x, context)
        return
    target = reshape_target(old, new)
    if target is None:
        context.record.skip(node, "no constant target says the shape of the result")
    elif context.record.change(node, f"{before.op_type} ▸ {node.op_type} to {target}"):
        become(node, "Reshape", [x, edit.constant(f"{node.outputs[0].name}.shape", target)])


def _remove(node: ir.Node, x: ir.Value | None, context: Context) -> None:
    assert x is not None
    reason = bypass_hindrance(node.outputs[0], x)
    if reason:
        context.record.skip(node, reason)
    elif context.record.change(node, "back to the shape it had"):
        bypass(node.outputs[0], x)


def _reshapes(node: ir.Node, shapes: Shapes) -> bool:
    """True when the node leaves the order of the elements in memory as it is."""
    if node.domain not in ("", "ai.onnx") or not node.inputs or shapes.version < 5:
        return False
    if node.op_type != "Transpose":
        return node.op_type in _RESHAPING
    x = shapes.shape(node.inputs[0])
    perm: Any = attribute(node, "perm")
    return x is not None and perm is not None and keeps_order(x, perm)


def keeps_order(shape: Shape, perm: tuple[int, ...]) -> bool:
    """True when a permutation moves only axes of size 1."""
    moved = [axis for axis in perm if shape[axis] != 1]
    return moved == sorted(moved)

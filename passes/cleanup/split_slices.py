"""Slices that cut one value into pieces: one Split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from ...ir.graph import attribute, constant, only_consumer
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import Editor, become, bypass, integers, standard_nodes
from .merge_slices import slice_cuts

__all__ = ["SplitSlices"]


@dataclass(frozen=True)
class SplitSlices(Pass):
    """x[:a], x[a:b], x[b:]  ⇒  Split(x, [a, b−a, …]);  Unsqueeze(Gather(x, i)) on one axis  ⇒  x[i:i+1]

    The slices must tile one axis of known size, in whatever order, each piece once.
    """

    name: ClassVar[str] = "split-slices"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        edit = Editor(model)
        for node in standard_nodes(model):
            if node.op_type == "Unsqueeze":
                _select(node, shapes, edit, context)
        groups: dict[tuple[ir.Value | None, object, int], list[tuple[int, int, ir.Node]]] = {}
        for node in model.graph.all_nodes():
            piece = _piece(node, shapes)
            if piece is not None:
                axis, start, end = piece
                groups.setdefault((node.inputs[0], node.graph, axis), []).append((start, end, node))
        for (x, _, axis), pieces in groups.items():
            _split(x, axis, sorted(pieces, key=lambda p: p[:2]), shapes, edit, context)


def _piece(node: ir.Node, shapes: Shapes) -> tuple[int, int, int] | None:
    """Axis, start and end of a slice that cuts one axis of known size with step 1."""
    if node.op_type != "Slice" or node.domain not in ("", "ai.onnx"):
        return None
    cuts, x, y = slice_cuts(node, shapes), shapes.shape(node.inputs[0]), shapes.shape(node.outputs[0])
    if cuts is None or x is None or y is None or any(cut.step != 1 for cut in cuts.values()):
        return None
    changed = [axis for axis in cuts if x[axis] != y[axis]]
    size = x[changed[0]] if len(changed) == 1 else None
    if not isinstance(size, int):
        return None
    cut = cuts[changed[0]]
    start, end, _ = slice(cut.start, cut.end, 1).indices(size)
    return (changed[0], start, end) if end > start else None


def _split(
    x: ir.Value | None,
    axis: int,
    pieces: list[tuple[int, int, ir.Node]],
    shapes: Shapes,
    edit: Editor,
    context: Context,
) -> None:
    if len(pieces) < 2 or x is None:
        return
    shape = shapes.shape(x)
    ends = [0] + [end for _, end, _ in pieces]
    if shape is None or [start for start, _, _ in pieces] != ends[:-1] or ends[-1] != shape[axis]:
        context.record.skip(pieces[0][2], "the slices of its input do not tile it")
        return
    first = next(n for n in pieces[0][2].graph if any(n is p for _, _, p in pieces))  # type: ignore[union-attr]
    sizes = [end - start for start, end, _ in pieces]
    if edit.version < 2 or not context.record.change(first, f"axis {axis} in pieces of {sizes}"):
        return
    outputs = [ir.Value(name=edit.name(f"{p.outputs[0].name}.piece")) for _, _, p in pieces]
    by_input = edit.version >= 13
    inputs = [x, edit.constant(f"{x.name}.split", sizes)] if by_input else [x]
    attributes: dict[str, Any] = {"axis": axis} if by_input else {"axis": axis, "split": sizes}
    made = ir.node("Split", inputs, attributes=attributes, outputs=outputs)
    made.name = outputs[0].name
    first.graph.insert_before(first, made)  # type: ignore[union-attr]
    for output, (_, _, node) in zip(outputs, pieces, strict=True):
        output.dtype, output.shape = node.outputs[0].dtype, node.outputs[0].shape  # type: ignore[assignment]
        bypass(node.outputs[0], output)


def _select(node: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    """Unsqueeze of the axis that a Gather of one element dropped: a Slice."""
    x = node.inputs[0]
    gather = x.producer() if x is not None else None
    if x is None or gather is None or gather.op_type != "Gather" or gather.domain or edit.version < 10:
        return
    index, source = constant(gather.inputs[1], limit=1), shapes.shape(gather.inputs[0])
    axes = _axes(node, shapes)
    axis: Any = attribute(gather, "axis", 0)
    if index is None or index.ndim != 0 or source is None or axes is None or axes != [axis % len(source)]:
        return
    if only_consumer(x) is not node:
        context.record.skip(node, "the Gather before it has other readers")
        return
    start = int(index)
    if context.record.change(node, f"slice of element {start} along axis {axes[0]}"):
        stem = node.outputs[0].name
        end = start + 1 if start != -1 else 2**63 - 1
        bounds = [
            edit.constant(f"{stem}.{name}", [n]) for name, n in (("start", start), ("end", end), ("axis", axes[0]))
        ]
        become(node, "Slice", [gather.inputs[0], *bounds])


def _axes(node: ir.Node, shapes: Shapes) -> list[int] | None:
    axes, rank = integers(node, 1, "axes", shapes), shapes.rank(node.outputs[0])
    return None if axes is None or rank is None else [a % rank for a in axes]

"""Slices of slices, slices that are squeezed, sibling slices and concatenations: fewer data movements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.dimension import at_least
from ...ir.graph import only_consumer
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import Editor, become, integers, standard_nodes

__all__ = ["Cut", "MergeSlices", "slice_cuts"]

_END = 2**63 - 1


@dataclass(frozen=True)
class Cut:
    """What a Slice does to one axis."""

    start: int
    end: int
    step: int


@dataclass(frozen=True)
class MergeSlices(Pass):
    """Slice(Slice(x))  ⇒  one Slice;  Squeeze(x[i:i+1])  ⇒  Gather(x, i)

    Slices of the same axis are merged when all four bounds are constants that count from the front.
    """

    name: ClassVar[str] = "merge-slices"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        edit = Editor(model)
        for node in standard_nodes(model):
            if not node.inputs or node.inputs[0] is None:
                continue
            before = node.inputs[0].producer()
            if before is None or before.op_type != "Slice":
                continue
            if node.op_type == "Slice":
                _merge(node, before, shapes, edit, context)
            elif node.op_type == "Squeeze":
                _select(node, before, shapes, edit, context)


def _merge(node: ir.Node, before: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    outer, inner = slice_cuts(node, shapes), slice_cuts(before, shapes)
    if outer is None or inner is None:
        context.record.skip(node, "the bounds of the two slices are not constant")
        return
    if only_consumer(before.outputs[0]) is not node:
        context.record.skip(node, "the slice before it has other readers")
        return
    merged = dict(inner)
    for axis, cut in outer.items():
        both = _compose(inner[axis], cut) if axis in inner else cut
        if both is None:
            context.record.skip(node, "both slice the same axis, with bounds that depend on its size")
            return
        merged[axis] = both
    if context.record.change(node, f"axes {sorted(merged)} at once"):
        _write(node, before.inputs[0], merged, edit)


def _compose(inner: Cut, outer: Cut) -> Cut | None:
    """x[i:e:s][j:f:t] as one slice, where every bound counts from the front."""
    if min(inner.start, inner.end, outer.start, outer.end) < 0 or inner.step < 1 or outer.step < 1:
        return None
    start = inner.start + outer.start * inner.step
    end = inner.end if outer.end >= _END // 2 else min(inner.end, inner.start + outer.end * inner.step)
    return Cut(min(start, inner.end), end, inner.step * outer.step)


def slice_cuts(node: ir.Node, shapes: Shapes) -> dict[int, Cut] | None:
    """The slice of each axis it names, when all numbers are constant."""
    rank = shapes.rank(node.inputs[0])
    starts, ends = integers(node, 1, "starts", shapes), integers(node, 2, "ends", shapes)
    if rank is None or starts is None or ends is None:
        return None
    has_axes = "axes" in node.attributes or (len(node.inputs) > 3 and node.inputs[3] is not None)
    axes = integers(node, 3, "axes", shapes) if has_axes else list(range(len(starts)))
    has_steps = len(node.inputs) > 4 and node.inputs[4] is not None
    steps = shapes.numbers(node.inputs[4]) if has_steps else [1] * len(starts)
    if axes is None or steps is None:
        return None
    rows = zip(axes, starts, ends, steps, strict=True)
    return {axis % rank: Cut(start, end, step) for axis, start, end, step in rows}


def _write(node: ir.Node, x: ir.Value | None, cuts: dict[int, Cut], edit: Editor) -> None:
    axes = sorted(cuts)
    starts, ends = [cuts[a].start for a in axes], [cuts[a].end for a in axes]
    steps = [cuts[a].step for a in axes]
    if edit.version < 10:
        become(node, "Slice", [x], {"axes": axes, "starts": starts, "ends": ends})
        return
    stem = node.outputs[0].name
    named = [("starts", starts), ("ends", ends), ("axes", axes)]
    if any(step != 1 for step in steps):
        named.append(("steps", steps))
    become(node, "Slice", [x, *(edit.constant(f"{stem}.{name}", numbers) for name, numbers in named)])


def _select(node: ir.Node, before: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    """Squeeze of the one axis that a slice cuts to one element: a Gather of that element."""
    cuts, axes = slice_cuts(before, shapes), integers(node, 1, "axes", shapes)
    x = shapes.shape(before.inputs[0])
    if cuts is None or axes is None or x is None or len(axes) != 1 or len(cuts) != 1:
        return
    ((axis, cut),) = cuts.items()
    index = cut.start
    if axes[0] % len(x) != axis or abs(cut.step) != 1 or shapes.shape(before.outputs[0]) is None:
        return
    if index < 0 or not at_least(x[axis], index + 1) or shapes.shape(before.outputs[0])[axis] != 1:  # type: ignore[index]
        context.record.skip(node, "the slice may be empty, or counts from the end")
        return
    if only_consumer(before.outputs[0]) is not node:
        context.record.skip(node, "the slice before it has other readers")
        return
    if context.record.change(node, f"Gather of element {index} along axis {axis}"):
        indices = edit.constant(f"{node.outputs[0].name}.index", np.asarray(index, np.int64))
        become(node, "Gather", [before.inputs[0], indices], {"axis": axis})

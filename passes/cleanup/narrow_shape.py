"""A part of a shape: asked for at once, from opset 15."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from ...ir.graph import attribute, constant
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import become, standard_nodes
from .merge_slices import slice_cuts

__all__ = ["NarrowShape"]

_SINCE = 15
_Range = tuple[int, int]


@dataclass(frozen=True)
class NarrowShape(Pass):
    """Slice(Shape(x), i, j) and Gather(Shape(x), [i])  ⇒  Shape{start=i, end=j}(x)"""

    name: ClassVar[str] = "narrow-shape"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        for node in standard_nodes(model):
            if node.op_type not in ("Slice", "Gather"):
                continue
            shape = node.inputs[0].producer() if node.inputs[0] is not None else None
            if shape is None or shape.op_type != "Shape":
                continue
            wanted = _sliced(node, shapes) if node.op_type == "Slice" else _gathered(node)
            rank = shapes.rank(shape.inputs[0])
            if shapes.version < _SINCE:
                context.record.skip(node, f"Shape has a start and an end since opset {_SINCE}")
            elif wanted is None or rank is None or "start" in shape.attributes or "end" in shape.attributes:
                context.record.skip(node, "it does not take consecutive sizes of a whole shape of known rank")
            else:
                start, end, _ = slice(*wanted).indices(rank)
                if context.record.change(node, f"sizes {start} to {end}"):
                    become(node, "Shape", [shape.inputs[0]], {"start": start, "end": end})


def _sliced(node: ir.Node, shapes: Shapes) -> _Range | None:
    cuts = slice_cuts(node, shapes)
    cut = cuts.get(0) if cuts is not None and len(cuts) == 1 else None
    return None if cut is None or cut.step != 1 else (cut.start, cut.end)


def _gathered(node: ir.Node) -> _Range | None:
    array: Any = constant(node.inputs[1], limit=16)
    if array is None or array.ndim != 1 or attribute(node, "axis", 0) != 0:
        return None
    indices = [int(i) for i in array]
    consecutive = bool(indices) and indices == list(range(indices[0], indices[0] + len(indices)))
    if not consecutive or (indices[0] < 0 <= indices[-1]):
        return None
    return indices[0], indices[-1] + 1 if indices[-1] != -1 else 2**63 - 1

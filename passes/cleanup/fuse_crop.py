"""Cropping after a transposed convolution: the convolution's own pads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from ...ir.dimension import Dimension
from ...ir.graph import attribute, only_consumer
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import become, standard_nodes
from .merge_slices import Cut, slice_cuts

__all__ = ["FuseCrop"]


@dataclass(frozen=True)
class FuseCrop(Pass):
    """ConvTranspose(x, W){pads=p}[…, i:n−j, …]  ⇒  ConvTranspose(x, W){pads=p+(i, j)},  spatial axes, step 1"""

    name: ClassVar[str] = "fuse-crop"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        for node in standard_nodes(model):
            x = node.inputs[0] if node.op_type == "Slice" else None
            before = x.producer() if x is not None else None
            if x is None or before is None or before.op_type != "ConvTranspose" or before.graph is not node.graph:
                continue
            if only_consumer(x) is not node:
                context.record.skip(node, "the convolution before it has other readers")
                continue
            pads = _pads(node, before, shapes)
            if isinstance(pads, str):
                context.record.skip(node, pads)
            elif context.record.change(node, f"pads {pads}"):
                attributes: dict[str, Any] = dict(before.attributes)
                attributes.pop("auto_pad", None)
                node.name = before.name
                become(node, "ConvTranspose", list(before.inputs), {**attributes, "pads": pads})


def _pads(node: ir.Node, conv: ir.Node, shapes: Shapes) -> list[int] | str:
    """The pads that crop as the slice does, or the reason why there are none."""
    cuts, shape = slice_cuts(node, shapes), shapes.shape(node.inputs[0])
    if cuts is None or shape is None:
        return "the bounds of the slice are not constant"
    if attribute(conv, "auto_pad", "NOTSET") != "NOTSET" or "output_shape" in conv.attributes:
        return "the convolution works out its pads by itself"
    spatial = len(shape) - 2
    pads: list[int] = list(attribute(conv, "pads", (0,) * (2 * spatial)))  # type: ignore[call-overload]
    for axis, cut in cuts.items():
        crop = _crop(cut, shape[axis])
        if crop is None or (axis < 2 and crop != (0, 0)):
            return "the slice does not crop a known number of elements from spatial axes"
        if axis >= 2:
            pads[axis - 2] += crop[0]
            pads[axis - 2 + spatial] += crop[1]
    return pads


def _crop(cut: Cut, size: Dimension) -> tuple[int, int] | None:
    """How many elements go at the start and at the end; None when that depends on an unknown size."""
    if cut.step != 1 or cut.start < 0:
        return None
    if isinstance(size, int):
        start, end, _ = slice(cut.start, cut.end, 1).indices(size)
        return (start, size - end) if end > start else None
    if cut.end < 0:
        return cut.start, -cut.end
    return (cut.start, 0) if cut.end >= 2**31 - 1 else None

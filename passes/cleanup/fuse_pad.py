"""Padding with zeros into the pads of the convolution or average pooling that reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import attribute, constant
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import become, integers, standard_nodes

__all__ = ["FusePad"]

_PADDED = {"Conv", "AveragePool", "MaxPool"}


@dataclass(frozen=True)
class FusePad(Pass):
    """Conv(Pad(x, p), W){pads=q}  ⇒  Conv(x, W){pads=p+q};  AveragePool that counts its padding and MaxPool alike

    Pad: constant mode, 0 (−∞ before MaxPool), spatial axes only, nothing cropped.
    """

    name: ClassVar[str] = "fuse-pad"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        for node in standard_nodes(model):
            x = node.inputs[0] if node.op_type in _PADDED else None
            pad = x.producer() if x is not None else None
            if pad is None or pad.op_type != "Pad" or pad.domain not in ("", "ai.onnx"):
                continue
            fused = _fused(node, pad, shapes)
            if isinstance(fused, str):
                context.record.skip(node, fused)
            elif context.record.change(node, f"pads {fused['pads']}"):
                become(node, node.op_type, [pad.inputs[0], *node.inputs[1:]], fused)


def _fused(node: ir.Node, pad: ir.Node, shapes: Shapes) -> dict[str, Any] | str:
    """The attributes of the node that pads by itself, or the reason why it cannot."""
    if attribute(pad, "mode", "constant") != "constant":
        return f"the padding mode is {attribute(pad, 'mode')}"
    if not _fills_with(pad, -np.inf if node.op_type == "MaxPool" else 0.0):
        return "the padding value is not the one that the operator pads with"
    rank = shapes.rank(pad.inputs[0])
    spatial = _spatial_pads(pad, rank, shapes)
    if rank is None or spatial is None:
        return "the padding is not a constant on spatial axes only"
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return f"auto_pad is {attribute(node, 'auto_pad')}"
    attributes: dict[str, Any] = dict(node.attributes)
    own: Any = attribute(node, "pads", (0,) * len(spatial))
    if node.op_type != "Conv":
        kernel: Any = attribute(node, "kernel_shape", ())
        if attribute(node, "ceil_mode", 0):
            return "ceil_mode makes pooling treat its own padding differently"
        if any(p + q >= kernel[i % len(kernel)] for i, (p, q) in enumerate(zip(spatial, own, strict=True))):
            return "a pooling window would lie in the padding"
    if node.op_type == "AveragePool":
        if any(own) and not attribute(node, "count_include_pad", 0):
            return "the pooling does not count its own padding"
        attributes["count_include_pad"] = 1
    attributes.pop("auto_pad", None)
    attributes["pads"] = [p + q for p, q in zip(spatial, own, strict=True)]
    return attributes


def _fills_with(pad: ir.Node, value: float) -> bool:
    if "value" in pad.attributes:
        return float(pad.attributes["value"].value) == value
    given = pad.inputs[2] if len(pad.inputs) > 2 else None
    if given is None:
        return value == 0.0
    fill = constant(given, limit=1)
    return fill is not None and float(fill.reshape(-1)[0]) == value


def _spatial_pads(pad: ir.Node, rank: int | None, shapes: Shapes) -> list[int] | None:
    """Pads of the spatial axes, begins then ends; None when they are not known, negative, or on other axes."""
    pads = integers(pad, 1, "pads", shapes) or integers(pad, 1, "paddings", shapes)
    if rank is None or rank < 3 or pads is None or min(pads, default=0) < 0:
        return None
    axes = list(range(rank))
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        given = shapes.numbers(pad.inputs[3])
        if given is None:
            return None
        axes = [a % rank for a in given]
    if len(pads) != 2 * len(axes):
        return None
    begins, ends = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[i], pads[i + len(axes)]
    return None if any(begins[:2] + ends[:2]) else begins[2:] + ends[2:]

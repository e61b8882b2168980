"""Windows over one axis as windows over a plane of height one: TFLite has two-dimensional operators only."""

from __future__ import annotations

from dataclasses import replace

from ...ir.integer import IntegerOp
from ...targets.tflite import Tensor
from .site import NHWC, NoForm, Site

__all__ = ["as_plane", "give_plane", "operand_plane"]

_NLC = (0, 2, 1)
# attribute -> what the new axis has
_NEW_AXIS = {"kernel": 1, "strides": 1, "dilations": 1, "output_padding": 0}


def as_plane(site: Site, op: IntegerOp) -> IntegerOp:
    """The operation over two spatial axes; NoForm where it has neither one nor two."""
    spatial = len(site.operands[0].axes) - 2
    if spatial == 2:
        return op
    if spatial != 1:
        raise NoForm(f"windows over {spatial} axes")
    attributes = dict(op.attributes)
    for name, value in _NEW_AXIS.items():
        if name in attributes:
            attributes[name] = (value, *attributes[name])
    begin, end = attributes["pads"]
    attributes["pads"] = (0, begin, 0, end)
    weight = None if op.weight is None else op.weight[:, :, None, :]
    return replace(op, weight=weight, attributes=attributes)


def operand_plane(site: Site) -> Tensor:
    """The first operand as NHWC, with a height of one where it has one spatial axis."""
    if len(site.operands[0].axes) == 4:
        return site.operand(0, NHWC)
    x = site.operand(0, _NLC)
    return site.reshaped(x, (x.shape[0], 1, *x.shape[1:]))


def give_plane(site: Site, result: Tensor) -> None:
    """The next result, without the height that `operand_plane` added."""
    if len(site.operands[0].axes) == 4:
        site.give(result, NHWC)
    else:
        site.give(site.reshaped(result, (result.shape[0], *result.shape[2:])), _NLC)

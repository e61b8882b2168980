"""Sums and products with constants: element-wise for a number, a 1 × 1 depthwise convolution for channels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...ir.integer import IntegerOp
from ...targets.tflite import Tensor
from .activation import emit_clipped
from .site import NHWC, NoForm, Site, row_major

__all__ = ["by_channel", "by_number", "plus_constant"]

Floats = npt.NDArray[np.float64]


def plus_constant(site: Site, op: IntegerOp) -> None:
    """y = rint(x · m + c)  ⇒  ADD or SUB with a constant, or DEPTHWISE_CONV_2D with c as its bias."""
    assert op.multiplier is not None and op.addend is not None and op.encoding is not None
    scale = float(op.encoding.scale)
    added = op.addend.astype(np.float64) * scale
    if added.size > 1:
        factor = op.multiplier.astype(np.float64) * scale / _scale(op)
        by_channel(site, op, np.broadcast_to(factor, added.shape), added)
        return
    place, number = site.operands[0], float(added.reshape(()))
    constant = _constant(site, number, place.tensor, len(place.axes))
    negative = float(op.multiplier[0]) < 0
    inputs = [constant, place.tensor] if negative else [place.tensor, constant]
    site.give(emit_clipped(site, op, "SUB" if negative else "ADD", inputs, place.tensor.shape), place.axes)


def by_number(site: Site, op: IntegerOp, factor: float) -> None:
    """y = rint(x · f)  ⇒  MUL with a constant."""
    place = site.operands[0]
    constant = _constant(site, factor, place.tensor, len(place.axes))
    site.give(emit_clipped(site, op, "MUL", [place.tensor, constant], place.tensor.shape), place.axes)


def _constant(site: Site, number: float, like: Tensor, rank: int) -> Tensor:
    """A number as the highest level, or its negative, of the type of an activation."""
    most = np.iinfo(like.dtype).max
    level = np.full((1,) * rank, int(np.sign(number)) * most, like.dtype)
    return site.constant(level, scale=(abs(number) or 1.0) / most)


def by_channel(site: Site, op: IntegerOp, factor: Floats, added: Floats | None = None) -> None:
    """y_c = rint(x_c · f_c + a_c)  ⇒  DEPTHWISE_CONV_2D of 1 × 1 with weights ±127 at scale |f_c| / 127.

    c counts the channels of an image, or the last axis of anything.
    """
    shape = site.operands[0].shape
    axis = _axis(len(shape), factor if added is None else factor * added)
    axes = NHWC if axis == 1 else row_major(len(shape))
    rows = site.operand(0, axes)
    channels = rows.shape[-1]
    x = rows if axis == 1 else site.reshaped(rows, (1, int(np.prod(rows.shape[:-1])), 1, channels))
    factor = _by_channel(factor, channels)
    scale = np.maximum(np.abs(factor), np.finfo(np.float32).tiny) / 127
    levels = (np.sign(factor) * 127).astype(np.int8).reshape(1, 1, 1, channels)
    weight = site.constant(levels, scale=scale, axis=3)
    assert x.scale is not None
    step = scale * float(x.scale)
    offset = np.zeros(channels) if added is None else _by_channel(added, channels)
    steps = np.rint(offset / step)
    if np.abs(steps).max(initial=0) > 2**31 - 1:
        raise NoForm("a constant that is too large beside its factor")
    bias = site.constant(steps.astype(np.int64 if x.dtype == "int16" else np.int32), scale=step)
    options = {"padding": "VALID", "strideH": 1, "strideW": 1, "depthMultiplier": 1}
    options |= {"dilationHFactor": 1, "dilationWFactor": 1}
    made = emit_clipped(site, op, "DEPTHWISE_CONV_2D", [x, weight, bias], x.shape, **options)
    site.give(site.reshaped(made, rows.shape), axes)


def _axis(rank: int, values: Floats) -> int:
    """The axis of an operand of this rank that the values differ along: 1 of an image, or the last."""
    wide = (1,) * (rank - values.ndim) + values.shape
    axes = [a for a, n in enumerate(wide) if n > 1]
    if axes == [1] and rank == 4:
        return 1
    if axes == [rank - 1]:
        return rank - 1
    raise NoForm("a constant that differs along other axes than the channels")


def _by_channel(values: Floats, channels: int) -> Floats:
    return np.broadcast_to(values.reshape(-1), (channels,)).astype(np.float64)


def _scale(op: IntegerOp) -> float:
    encoding = op.inputs[0].encoding
    assert encoding is not None
    return float(encoding.scale)

"""Convolutions on HVX: VRMPY for depthwise ones too, four neighbours of a channel in each of its 32-bit lanes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...ir.windows import output_size
from ..tvm import environment
from ..tvm.operators.conv import conv as any_conv
from ..tvm.operators.kernel import Kernel
from ..tvm.operators.located import Located, channels_last
from .operations import DOT, LANES, register

__all__ = ["conv"]

Array = npt.NDArray[np.generic]

_TAPS = 4  # products that VRMPY sums in one lane
_STAGED_BYTES = 32 * 1024  # of one vector of channels: a stretch of rows that is read many times


def conv(kernel: Kernel) -> Located:
    """Depthwise convolutions by lanes; all others as the TVM back end does, whose template has VRMPY."""
    op = kernel.op
    assert op.weight is not None and op.weight_zero_point is not None
    depthwise = op.weight.ndim == 4 and op.weight.shape[:2] == (kernel.operands[0].shape[1], 1)
    integers = op.weight.dtype == np.int8 and kernel.operands[0].dtype in ("int8", "uint8")
    if depthwise and integers and not op.weight_zero_point.any() and op.weight.shape[0] == op.attributes["group"]:
        return _depthwise(kernel)
    return any_conv(kernel)


@dataclass(frozen=True)
class _Window:
    """Sizes of a depthwise convolution; `reads`: dot products along a row of the window."""

    size: tuple[int, int]
    out: tuple[int, int]
    taps: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def reads(self) -> int:
        return -(-self.taps[1] // _TAPS)

    @property
    def rows(self) -> int:
        """Rows of results whose operand is staged together: the most that divide the result and fit."""
        reach = (self.taps[0] - 1) * self.dilations[0] + 1
        row = self.out[1] * self.reads * LANES * 4
        fit = [n for n in range(1, self.out[0] + 1) if ((n - 1) * self.strides[0] + reach) * row <= _STAGED_BYTES]
        return max((n for n in fit if self.out[0] % n == 0), default=1)

    @property
    def positions(self) -> int:
        """Results of a row that are summed at once."""
        return next(p for p in (8, 7, 6, 5, 4, 3, 2, 1) if self.out[1] % p == 0)


def _depthwise(kernel: Kernel) -> Located:
    """acc = Σ (x − z_x) · w + bias for each channel; see `conv` of the TVM back end."""
    op, te = kernel.op, kernel.te
    assert op.weight is not None and op.bias is not None and op.multiplier is not None
    register()
    kernel.relay(0, channels_last(4))
    n, channels, *_ = kernel.operands[0].shape
    window, padded = _window(kernel), -(-channels // LANES) * LANES
    shift = 128 if kernel.operands[0].dtype == "int8" else 0  # VRMPY reads activations as unsigned
    staged = _staged(kernel, window, padded, shift)
    weight = kernel.array(_words(op.weight[:, 0], padded, window.reads), "w")
    sums = op.weight.astype(np.int64).sum(axis=(1, 2, 3))
    folded = (op.bias.astype(np.int64) - (kernel.zero_point() + shift) * sums).astype(np.int32)
    bias, factor, levels = kernel.array(folded, "bias"), kernel.array(op.multiplier, "multiplier"), kernel.levels()
    r, g = te.reduce_axis((0, window.taps[0]), name="r"), te.reduce_axis((0, window.reads), name="g")

    def term(b: Any, y: Any, x: Any, c: Any) -> Any:
        word = staged(b, y * window.strides[0] + r * window.dilations[0], x, g, c)
        return te.sum(kernel.tirx.call_intrin("int32", DOT, word, weight(r, g, c)), axis=[r, g])

    acc = te.compute((n, *window.out, padded), term, name="acc")
    result = te.compute(
        (n, *window.out, channels),
        lambda b, y, x, c: levels((acc(b, y, x, c) + bias[c]).astype("float32") * factor[c]),
        name="out",
    )
    place = Located("", (n, channels, *window.out), kernel.result_type, channels_last(4))
    whole = channels == padded
    return kernel.finish(result, place, lambda function: _schedule(function, window, whole))


def _window(kernel: Kernel) -> _Window:
    attributes, weight = kernel.op.attributes, kernel.op.weight
    assert weight is not None
    size, taps = kernel.operands[0].shape[2:], weight.shape[2:]
    strides, dilations, pads = (tuple(int(v) for v in attributes[k]) for k in ("strides", "dilations", "pads"))
    out = (output_size(size[d], taps[d], strides[d], dilations[d], pads[d], pads[d + 2]) for d in (0, 1))
    return _Window(size, tuple(out), taps, strides, dilations, pads)  # type: ignore[arg-type]


def _staged(kernel: Kernel, window: _Window, padded: int, shift: int) -> Any:
    """[N, rows, results of a row, reads, channels]: four neighbours along the row in the bytes of one int32."""
    tirx, x = kernel.tirx, kernel.operand()
    top, left, bottom, _ = window.pads
    n, channels, rows, columns = x.shape
    border = kernel.scalar(kernel.zero_point() + shift, "int32", "border")

    def level(b: Any, h: Any, at: Any, c: Any) -> Any:
        value = x(b, c, h - top, at - left).astype("int32")
        inside = [h >= top, h < top + rows] if top or bottom else []
        # The last read of a row may reach past the window and the image; its weights are zero there.
        inside += [at >= left, at < left + columns, *([c < channels] if channels != padded else [])]
        return tirx.if_then_else(tirx.all(*inside), value + shift if shift else value, border)

    def element(b: Any, h: Any, w: Any, g: Any, c: Any) -> Any:
        first = w * window.strides[1] + g * (_TAPS * window.dilations[1])
        levels = [level(b, h, first + k * window.dilations[1], c) for k in range(_TAPS)]
        return levels[0] | (levels[1] << 8) | (levels[2] << 16) | (levels[3] << 24)

    return kernel.te.compute((n, rows + top + bottom, window.out[1], window.reads, padded), element, name="staged")


def _words(weight: Array, padded: int, reads: int) -> Array:
    """[C, R, S] to int32 [R, reads, C]: four weights of a row in each, zeros in the padding."""
    channels, rows, columns = weight.shape
    full = np.zeros((rows, padded, reads * _TAPS), np.int8)
    full[:, :channels, :columns] = weight.transpose(1, 0, 2)
    split = full.reshape(rows, padded, reads, _TAPS).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(split).view("<i4")[..., 0]


def _schedule(function: Any, window: _Window, whole: bool) -> Any:
    """Sums of a row's tile in registers; the operand is staged for a few rows of one vector of channels."""
    sch = environment.load().s_tir.Schedule(function)
    acc, out, staged = (sch.get_sblock(name) for name in ("acc", "out", "staged"))
    tiled = out if whole else acc
    n, h, w, c, *reduction = sch.get_loops(tiled)
    ho, hi = sch.split(h, [None, window.rows])
    wo, wi = sch.split(w, [None, window.positions])
    co, ci = sch.split(c, [None, LANES])
    sch.reorder(n, ho, co, hi, wo, *reduction, wi, ci)
    sch.unroll(wi)
    sch.vectorize(ci)
    if whole:
        sch.compute_at(acc, wo, preserve_unit_loops=True)
        position, lane, *reduction = sch.get_loops(acc)[-4:]
        sch.reorder(*reduction, position, lane)
        sch.unroll(position)
        sch.vectorize(lane)
    sch.compute_at(staged, co, preserve_unit_loops=True)
    sch.vectorize(sch.get_loops(staged)[-1])
    zero_position, zero_lane = sch.get_loops(sch.decompose_reduction(acc, reduction[0]))[-2:]
    sch.unroll(zero_position)
    sch.vectorize(zero_lane)
    return sch.mod["main"]

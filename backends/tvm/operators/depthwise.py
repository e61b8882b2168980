"""Depthwise convolutions: one filter a channel, vectors along the channels, sums in float32 where they are exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ....ir.quantization import integer_range
from ....ir.windows import output_size
from .kernel import Kernel, Located, channels_last

__all__ = ["depthwise"]

_STAGED_BYTES = 24 * 1024  # what stays in a first-level cache beside weights and results
_EXACT = 2**24  # float32 holds every integer up to here, so a sum that stays below is exact in any order


def depthwise(kernel: Kernel) -> Located:
    """acc = Σ (x − z_x) · w + bias for each channel (times a channel multiplier); see `conv`."""
    op, te = kernel.op, kernel.te
    assert op.weight is not None and op.bias is not None and op.multiplier is not None
    n, channels, *size = kernel.operands[0].shape
    filters, _, *window = op.weight.shape
    factor = filters // channels
    attributes = op.attributes
    strides, dilations, pads = ([int(v) for v in attributes[k]] for k in ("strides", "dilations", "pads"))
    out = [output_size(size[d], window[d], strides[d], dilations[d], pads[d], pads[d + 2]) for d in (0, 1)]
    kind = _sum_type(kernel)
    staged = _staged(kernel, pads, kind)
    weight = kernel.array(np.ascontiguousarray(op.weight[:, 0].transpose(1, 2, 0)).astype(kind), "w")
    bias, multiplier, clip = kernel.array(op.bias, "bias"), kernel.array(op.multiplier, "multiplier"), kernel.levels()
    r, s = (te.reduce_axis((0, k), name=name) for k, name in zip(window, "rs", strict=True))

    def term(b: Any, y: Any, x: Any, c: Any) -> Any:
        value = staged(b, y * strides[0] + r * dilations[0], x * strides[1] + s * dilations[1], c // factor)
        return te.sum(value * weight[r, s, c], axis=[r, s])

    acc = te.compute((n, *out, filters), term, name="acc")
    result = te.compute(
        (n, *out, filters),
        lambda b, y, x, c: clip((acc(b, y, x, c).astype("int32") + bias[c]).astype("float32") * multiplier[c]),
        name="out",
    )
    place = Located("", (n, filters, *out), kernel.result_type, channels_last(4))
    reach, width = (window[0] - 1) * dilations[0] + 1, size[1] + pads[1] + pads[3]
    tile = _tile(out, filters, strides[0], reach, width)
    return kernel.finish(result, place, lambda function: _schedule(function, tile))


def _sum_type(kernel: Kernel) -> str:
    """float32 where Σ |x − z_x||w| cannot leave the integers that it holds; vector units multiply it fastest."""
    encoding = kernel.op.inputs[0].encoding
    assert encoding is not None and kernel.op.weight is not None
    low, high = integer_range(encoding.dtype)
    most = np.abs(kernel.op.weight.astype(np.int64)).sum(axis=(1, 2, 3)).max() * (high - low)
    return "float32" if most < _EXACT else "int32"


def _staged(kernel: Kernel, pads: list[int], kind: str) -> Any:
    """x − z_x with a border of zeros."""
    x, tirx = kernel.operand(), kernel.tirx
    n, channels, rows, columns = x.shape
    value = kernel.centered(x)
    top, left, bottom, right = pads

    def element(b: Any, h: Any, w: Any, c: Any) -> Any:
        centered = value(b, c, h - top, w - left).astype(kind)
        conditions = []
        if top or bottom:
            conditions += [h >= top, h < top + rows]
        if left or right:
            conditions += [w >= left, w < left + columns]
        zero = tirx.const(0, kind)
        return tirx.if_then_else(tirx.all(*conditions), centered, zero) if conditions else centered

    return kernel.te.compute((n, rows + top + bottom, columns + left + right, channels), element, name="staged")


@dataclass(frozen=True)
class _Tile:
    """Output rows of one staged stretch, output positions in registers, channels of one vector."""

    rows: int
    positions: int
    lanes: int


def _tile(out: list[int], filters: int, stride: int, reach: int, width: int) -> _Tile | None:
    """The most rows whose stretch stays in cache; `reach`: rows of one window, `width`: staged positions of a row."""
    lanes = next((lane for lane in (16, 8, 4) if filters % lane == 0), None)
    if lanes is None:
        return None
    fit = [n for n in range(1, out[0] + 1) if ((n - 1) * stride + reach) * width * lanes * 4 <= _STAGED_BYTES]
    rows = max((n for n in fit if out[0] % n == 0), default=1)
    return _Tile(rows, next(p for p in (8, 7, 6, 5, 4, 3, 2, 1) if out[1] % p == 0), lanes)


def _schedule(function: Any, tile: _Tile | None) -> Any:
    """Sums of a tile in registers, its operand staged for a few rows of one vector of channels."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    acc, out, staged = (sch.get_sblock(name) for name in ("acc", "out", "staged"))
    if tile is None:
        return sch.mod["main"]
    n, h, w, c = sch.get_loops(out)
    wo, wi = sch.split(w, [None, tile.positions])
    co, ci = sch.split(c, [None, tile.lanes])
    ho, hi = sch.split(h, [None, tile.rows])
    sch.reorder(n, ho, co, hi, wo, wi, ci)
    sch.unroll(wi)
    sch.vectorize(ci)
    sch.compute_at(acc, wo, preserve_unit_loops=True)
    sch.compute_at(staged, co, preserve_unit_loops=True)
    channel = sch.get_loops(staged)[-1]
    if int(sch.get(channel).extent) == tile.lanes:
        sch.vectorize(channel)
    aw, ac, r, s = sch.get_loops(acc)[-4:]
    sch.reorder(r, s, aw, ac)
    sch.unroll(aw)
    sch.vectorize(ac)
    position, lane = sch.get_loops(sch.decompose_reduction(acc, r))[-2:]
    sch.unroll(position)
    sch.vectorize(lane)
    return sch.mod["main"]

"""Depthwise convolutions by dot products: taps beside each other in a row of the window are what is summed.

Activations are staged in quads, [channels, 4 columns], that begin at every second column. At stride 1 a quad serves two
results, with weights (w₀, w₁, w₂, 0) and (0, w₀, w₁, w₂); at stride 2 one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..intrinsics_arm64 import QUADS, SDOT_LANES
from .depthwise_tiles import DepthwiseConfig
from .epilogue import begun, bias_offset, finisher, reach
from .kernel import Kernel, Templated
from .located import Located
from .workload import config, folded_bias

__all__ = ["DepthwiseDot", "applies", "depthwise_dot"]

Array = npt.NDArray[np.generic]

_DEPTH = 4  # columns of a quad
_STEP = 2  # columns from quad to quad
_CHANNELS = 16  # that are staged together
_FINISHED = 8  # channels of a register tile
_STAGED_BYTES = 24 * 1024  # what stays in a first-level cache beside weights and results
_POSITIONS = 8


@dataclass(frozen=True)
class DepthwiseDot:
    """A 2-D convolution with one filter a channel and no channel multiplier: what the template sees of it."""

    batch: int
    channels: int
    size: tuple[int, int]
    out: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: int  # of the rows
    pads: tuple[int, int, int, int]

    def space(self) -> list[DepthwiseConfig]:
        """Every config that computes the workload; all give the same bits."""
        rows, positions = ([n for n in range(1, extent + 1) if extent % n == 0] for extent in self.out)
        return [
            DepthwiseConfig(r, p)
            for r in rows
            for p in positions
            if p <= _POSITIONS + _DEPTH and (r == 1 or self._staged(r, p) <= 2 * _STAGED_BYTES)
        ]

    def choose(self) -> DepthwiseConfig:
        """The most positions that registers hold, the most rows whose quads stay in cache."""
        positions = max(p for p in range(1, _POSITIONS + 1) if self.out[1] % p == 0)
        fitting = (r for r in range(1, self.out[0] + 1) if self.out[0] % r == 0)
        rows = [r for r in fitting if self._staged(r, positions) <= _STAGED_BYTES]
        return DepthwiseConfig(max(rows, default=1), positions)

    def quads(self, positions: int) -> int:
        """Quads of a row of so many results."""
        return -(-positions * self.strides[1] // _STEP)

    def reach(self, rows: int) -> int:
        """Rows of the operand behind so many rows of results."""
        return (rows - 1) * self.strides[0] + (self.kernel[0] - 1) * self.dilation + 1

    def _staged(self, rows: int, positions: int) -> int:
        return self.reach(rows) * self.out[1] // positions * self.quads(positions) * _DEPTH * _CHANNELS


def applies(kernel: Kernel) -> bool:
    """Whether the machine has the instruction, quads hold a row of the window, and channels fill them."""
    instruction, weight, attributes = kernel.target.instruction, kernel.op.weight, kernel.op.attributes
    assert weight is not None
    if instruction is None or instruction.name not in ("sdot", "smmla") or kernel.operands[0].dtype != "int8":
        return False
    taps, stride = weight.shape[3], int(attributes["strides"][1])
    held = (stride == 1 and taps < _DEPTH) or (stride == _STEP and taps <= _DEPTH)
    channels = int(weight.shape[0])
    # Of a single group TVM loses the index, and with it the place of its quads.
    filled = channels == kernel.operands[0].shape[1] and channels % _CHANNELS == 0 and channels > _CHANNELS
    return held and filled and int(attributes["dilations"][1]) == 1


def depthwise_dot(kernel: Kernel, size: list[int], out: list[int], place: Located) -> Located:
    """acc = Σ (x − z_x) · w + bias for each channel; see `conv`."""
    op = kernel.op
    assert op.weight is not None and op.multiplier is not None
    attributes, weight = op.attributes, op.weight
    strides, dilations, pads = (tuple(int(v) for v in attributes[k]) for k in ("strides", "dilations", "pads"))
    batch, channels = kernel.operands[0].shape[:2]
    window = (weight.shape[2], weight.shape[3])
    sizes = ((size[0], size[1]), (out[0], out[1]), window, (strides[0], strides[1]))
    p = DepthwiseDot(batch, channels, *sizes, dilations[0], (pads[0], pads[1], pads[2], pads[3]))
    zero = kernel.zero_point()
    x, border = kernel.operand(), kernel.scalar(zero, "int8", "border")
    largest = reach(kernel, weight)
    biases = (folded_bias(kernel, weight, zero).astype(np.int64) + bias_offset(kernel, largest)).astype(np.int32)
    packed = kernel.array(_pack(weight, p), "w")
    kernel.array(biases, "bias")  # which `begun` finds
    finish = finisher(kernel, largest, kernel.array(op.multiplier, "multiplier"))

    def made(tile: DepthwiseConfig) -> Any:
        return _result(kernel, p, tile, lambda *index: _padded(kernel, p, x, border, *index), packed, finish)

    chosen = config(kernel, p)

    def scheduled(_: Any, tile: DepthwiseConfig) -> Any:
        return _schedule(begun(kernel.function(made(tile))), p, tile)

    return kernel.tiled(Templated(made(chosen), place, p, chosen, scheduled))


def _pack(weight: Array, p: DepthwiseDot) -> Array:
    """[C, 1, R, S] to [R, shifts, C, 4], a row of the window at each place that it has in a quad."""
    c, _, r, s = weight.shape
    shifts = _STEP // p.strides[1]
    packed = np.zeros((r, shifts, c, _DEPTH), np.int8)
    for shift in range(shifts):
        packed[:, shift, :, shift : shift + s] = weight[:, 0].transpose(1, 0, 2)
    return packed


def _padded(kernel: Kernel, p: DepthwiseDot, x: Any, border: Any, b: Any, h: Any, w: Any, c: Any) -> Any:
    """The operand with its zero point around it."""
    top, left, *_ = p.pads
    (height, width), tirx = p.size, kernel.tirx
    inside = tirx.all(h >= top, h < top + height, w >= left, w < left + width)
    return tirx.if_then_else(inside, x(b, c, h - top, w - left), border)


def _result(kernel: Kernel, p: DepthwiseDot, tile: DepthwiseConfig, padded: Any, packed: Any, finish: Any) -> Any:
    te, quads = kernel.te, p.quads(tile.positions)
    shifts, tiles = _STEP // p.strides[1], p.out[1] // tile.positions
    pitch = tile.positions * p.strides[1]
    rows, columns = p.reach(p.out[0]), (tiles - 1) * pitch + (quads - 1) * _STEP + _DEPTH
    border = te.compute((p.batch, rows, columns, p.channels), padded, name="padded")
    staged = te.compute(
        (p.batch, rows, tiles, quads, p.channels * _DEPTH),
        lambda b, h, t, q, e: border(b, h, t * pitch + q * _STEP + e % _DEPTH, e // _DEPTH),
        name="staged",
    )
    r, k = te.reduce_axis((0, p.kernel[0]), name="r"), te.reduce_axis((0, _DEPTH), name="k")

    def term(b: Any, y: Any, t: Any, i: Any, c: Any) -> Any:
        value = staged(b, y * p.strides[0] + r * p.dilation, t, i // shifts, c * _DEPTH + k).astype("int32")
        return te.sum(value * packed[r, i % shifts, c, k].astype("int32"), axis=[r, k])

    acc = te.compute((p.batch, p.out[0], tiles, tile.positions, p.channels), term, name="acc")
    return te.compute(
        (p.batch, *p.out, p.channels),
        lambda b, y, x, c: finish(acc(b, y, x // tile.positions, x % tile.positions, c), c),
        name="out",
    )


def _schedule(function: Any, p: DepthwiseDot, tile: DepthwiseConfig) -> Any:
    """Quads of some rows and 16 channels, then register tiles of 8 channels, each finished at once."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    padded, staged, acc, out = (sch.get_sblock(name) for name in ("padded", "staged", "acc", "out"))
    sch.tensorize(sch.split(sch.get_loops(staged)[-1], [None, _CHANNELS * _DEPTH])[1], QUADS)
    staged = sch.get_sblock("staged_o")
    n, h, w, c = sch.get_loops(out)
    ho, hi = sch.split(h, [None, tile.rows])
    wo, wi = sch.split(w, [None, tile.positions])
    co, cm, ci = sch.split(c, [None, _CHANNELS // _FINISHED, _FINISHED])
    sch.reorder(n, ho, co, hi, wo, cm, wi, ci)
    sch.unroll(wi)
    sch.vectorize(ci)
    sch.compute_at(acc, cm, preserve_unit_loops=True)
    sch.compute_at(staged, co, preserve_unit_loops=True)
    sch.compute_at(padded, co, preserve_unit_loops=True)
    sch.vectorize(sch.get_loops(padded)[-1])
    aw, ac, r, k = sch.get_loops(acc)[-4:]
    vector, lane = sch.split(ac, [None, 4])
    sch.reorder(r, aw, vector, lane, k)
    for loop in (aw, vector):
        sch.unroll(loop)
    init = sch.decompose_reduction(acc, r)
    sch.unroll(r)
    *_, zero_position, zero_vector, zero_lane = sch.get_loops(init)
    sch.unroll(zero_position)
    sch.unroll(zero_vector)
    sch.vectorize(zero_lane)
    sch.tensorize(lane, SDOT_LANES)
    return sch.mod["main"]

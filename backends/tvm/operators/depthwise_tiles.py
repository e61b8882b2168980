"""Tiles of depthwise convolutions, integer and float: what they are chosen by, their space, their schedule."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from ..blocks import summed

__all__ = ["DepthwiseConfig", "DepthwiseWorkload", "lanes_of", "schedule_rows"]

_STAGED_BYTES = 24 * 1024  # what stays in a first-level cache beside weights and results
_POSITIONS = 8


@dataclass(frozen=True)
class DepthwiseConfig:
    """Output rows of one staged stretch of the operand, output positions in registers."""

    rows: int
    positions: int


@dataclass(frozen=True)
class DepthwiseWorkload:
    """A 2-D convolution with one filter a channel: sizes of the result and the window, the operand's padded width."""

    batch: int
    filters: int
    out: tuple[int, int]
    width: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    dtype: str  # of the sums
    lanes: int
    threads: int = 1  # that share the rows

    def space(self) -> list[DepthwiseConfig]:
        """Every config that computes the workload; all give the same bits."""
        sizes = [[n for n in range(1, extent + 1) if extent % n == 0] for extent in self.out]
        pairs = product(sizes[0], (p for p in sizes[1] if p <= 2 * _POSITIONS))
        return [DepthwiseConfig(*pair) for pair in pairs if pair[0] == 1 or self._staged(pair[0]) <= 2 * _STAGED_BYTES]

    def choose(self) -> DepthwiseConfig:
        """The most rows whose stretch stays in cache, the most positions that registers hold.

        Threads get rows of their own, as in the layers around, unless that is too few for the window.
        """
        rows = [n for n in range(1, self.out[0] + 1) if self.out[0] % n == 0 and self._staged(n) <= _STAGED_BYTES]
        own = [n for n in rows if n * self.threads <= self.out[0] and n >= self.kernel[0]]
        positions = next(p for p in range(_POSITIONS, 0, -1) if self.out[1] % p == 0)
        return DepthwiseConfig(max(own or rows, default=1), positions)

    def _staged(self, rows: int) -> int:
        """Bytes of the operand of so many output rows, in one vector of channels."""
        reach = (self.kernel[0] - 1) * self.dilations[0] + 1
        return ((rows - 1) * self.strides[0] + reach) * self.width * self.lanes * 4


def lanes_of(filters: int, widest: int = 16) -> int | None:
    """The widest vector that divides the channels."""
    return next((lane for lane in (16, 8, 4) if lane <= widest and filters % lane == 0), None)


def schedule_rows(sch: Any, acc: Any, out: Any, staged: Any, tile: DepthwiseConfig, lanes: int) -> None:
    """Sums of a tile in registers, its operand (block `staged`, or None) made ready for a few rows of one vector."""
    n, h, w, c = sch.get_loops(out)
    wo, wi = sch.split(w, [None, tile.positions])
    co, ci = sch.split(c, [None, lanes])
    ho, hi = sch.split(h, [None, tile.rows])
    sch.reorder(n, ho, co, hi, wo, wi, ci)
    sch.unroll(wi)
    sch.vectorize(ci)
    sch.compute_at(acc, wo, preserve_unit_loops=True)
    if staged is not None:
        sch.compute_at(staged, co, preserve_unit_loops=True)
        channel = sch.get_loops(staged)[-1]
        if int(sch.get(channel).extent) == lanes:
            sch.vectorize(channel)
    depth = len(summed(sch.get(acc)))
    loops = sch.get_loops(acc)
    (aw, ac), taps = loops[-depth - 2 : -depth], loops[-depth:]
    sch.reorder(*taps, aw, ac)
    sch.unroll(aw)
    sch.vectorize(ac)
    position, lane = sch.get_loops(sch.decompose_reduction(acc, taps[0]))[-2:]
    sch.unroll(position)
    sch.vectorize(lane)

"""Products of bfloat16 as tile registers (AMX) see them: sizes, tiles, how weights and the registers are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from .operators.workload import TILE_SIDE, Config

__all__ = ["POSITIONS", "ROW_BYTES", "SUMS", "WEIGHTS", "Bfloat16Product", "configuration", "packed"]

Array = npt.NDArray[np.generic]

ROW_BYTES = 64  # of a tile register
SUMS, POSITIONS, WEIGHTS, REGISTERS = 0, 4, 6, 8  # first register of each use


@dataclass(frozen=True)
class Bfloat16Product:
    """Results in rows of `width` positions by `columns`; `taps`: rows and columns of the window over `channels`.

    strides: distances between columns and between taps beside each other, in columns of the operand.
    """

    rows: int
    width: int
    columns: int
    channels: int
    taps: tuple[int, int]
    strides: tuple[int, int]

    @property
    def positions(self) -> int:
        """Of a tile: as many as divide a row of results, or all that fit where that would leave half of it empty."""
        divides = max(n for n in range(1, TILE_SIDE + 1) if self.width % n == 0)
        return divides if 2 * divides >= min(self.width, TILE_SIDE) else TILE_SIDE

    @property
    def joined(self) -> int:
        """Taps of a row of the window whose channels lie behind each other."""
        return self.taps[1] if self.strides[1] == 1 else 1

    @property
    def step(self) -> int:
        """Channels of a row of a tile: as many as divide those behind each other."""
        run = self.joined * self.channels
        return max((n for n in range(2, min(run, ROW_BYTES // 2) + 1, 2) if run % n == 0), default=0)

    def space(self) -> list[Config]:
        """Every config that computes the workload; sums are added up in the same order in all."""
        across, vectors = self.width // self.positions, self.columns // TILE_SIDE
        positions = [n for n in (1, 2) if n <= across and (self.width % self.positions or across % n == 0)]
        whole = [n for n in (1, 2) if vectors % n == 0]
        # Where the last block overlaps, the number is fixed, so that weights are packed alike for all configs.
        return [Config(*side) for side in product(positions, [min(2, vectors)] if self.columns % TILE_SIDE else whole)]

    def choose(self) -> Config:
        """The block with the fewest loads for each product."""
        return min(self.space(), key=lambda c: ((c.positions + c.vectors) / (c.positions * c.vectors), c.vectors))


def packed(array: Array, p: Bfloat16Product) -> Array:
    """Weights [..., channels, columns] tile by tile of columns: [tiles, ..., channels / 2, 16, 2]."""
    size = TILE_SIDE * p.choose().vectors
    blocks = [min(start, p.columns - size) for start in range(0, p.columns, size)]
    starts = [block + start for block in blocks for start in range(0, size, TILE_SIDE)]
    *front, channels, _ = array.shape
    tiles = np.stack([array[..., start : start + TILE_SIDE] for start in starts])
    return np.ascontiguousarray(np.moveaxis(tiles.reshape(-1, *front, channels // 2, 2, TILE_SIDE), -2, -1))


def configuration(p: Bfloat16Product) -> Array:
    """What LDTILECFG reads: rows and bytes a row of each register; sums first, then positions, then weights."""
    raw = np.zeros(64, np.uint8)
    raw[0] = 1  # palette
    columns, rows = raw[16:48].view(np.uint16), raw[48:64]
    columns[:REGISTERS], rows[:WEIGHTS] = ROW_BYTES, p.positions
    columns[POSITIONS:WEIGHTS], rows[WEIGHTS:REGISTERS] = 2 * p.step, p.step // 2
    return raw

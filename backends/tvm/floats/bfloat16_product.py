"""Products of bfloat16 as tile registers (AMX) see them: sizes, tiles, how weights and the registers are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from ....targets.target import Target
from ..operators.workload import TILE_SIDE, Config
from ..schedule import overlapping_tiles

__all__ = [
    "INSTRUCTIONS",
    "POSITIONS",
    "ROW_BYTES",
    "SUMS",
    "WEIGHTS",
    "Bfloat16MatrixPairs",
    "Bfloat16MatrixProduct",
    "Bfloat16Pairs",
    "Bfloat16Product",
    "configuration",
    "matrix_product",
    "packed",
]

Array = npt.NDArray[np.generic]

INSTRUCTIONS = frozenset({"amx-bf16", "avx512bf16"})  # features with which a machine multiplies bfloat16
ROW_BYTES = 64  # of a tile register
SUMS, POSITIONS, WEIGHTS, REGISTERS = 0, 4, 6, 8  # first register of each use
_SUMS = 24  # vectors of sums, of 32 registers
_PRODUCT, _FINISH = 16, 32  # cycles of a tile product, and about those of results from a tile of sums


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
    def tiles(self) -> int:
        """Tiles of columns, those of a last block that overlaps the one before included."""
        vectors = self.choose().vectors if self.columns % TILE_SIDE else 1
        return -(-self.columns // (TILE_SIDE * vectors)) * vectors

    def first(self, tile: int) -> int:
        """The first column of a tile."""
        vectors = self.choose().vectors if self.columns % TILE_SIDE else 1
        start = tile // vectors * TILE_SIDE * vectors
        return min(start, self.columns - TILE_SIDE * vectors) + tile % vectors * TILE_SIDE

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


@dataclass(frozen=True)
class Bfloat16MatrixProduct(Bfloat16Product):
    """Products of two activations, `rows` of them; strides: between rows of the left factor, in units of `channels`.

    The last step of channels overlaps the one before it; what that one has summed is zero in its packed factor.
    """

    @property
    def step(self) -> int:
        return min(self.channels, ROW_BYTES // 2)

    @property
    def steps(self) -> int:
        return -(-self.channels // self.step)

    @property
    def packed_shape(self) -> list[int]:
        """Of one packed factor: tiles of columns, pairs of channels, columns of a tile."""
        return [self.tiles, self.steps * self.step // 2, TILE_SIDE]


class _Pairs:
    """Two channels a step and 16 columns a vector, in register tiles of any number of positions (AVX512-BF16)."""

    width: int
    columns: int
    positions = 1
    joined = 1
    step = 2

    def space(self) -> list[Config]:
        """Every config that computes the workload; all give the same bits. The last tile of a row may overlap."""
        vectors = self.columns // TILE_SIDE
        fixed = {min(2, vectors)}  # so that a factor whose last block overlaps is packed alike for all configs
        known = fixed if self.columns % TILE_SIDE else {n for n in range(1, vectors + 1) if vectors % n == 0}
        return [Config(*tile) for tile in overlapping_tiles(self.width, vectors, _SUMS) if tile[1] in known]

    def choose(self) -> Config:
        """The tile with the fewest cycles for a row of results: a product each, the next on the same sums after six."""
        vectors = -(-self.columns // TILE_SIDE)

        def cycles(c: Config) -> tuple[float, float]:
            step = max(c.positions * c.vectors, (c.positions + c.vectors) / 2, 6)
            tiles = -(-self.width // c.positions) * -(-vectors // c.vectors)
            return tiles * step, (c.positions + c.vectors) / (c.positions * c.vectors)

        return min(self.space(), key=cycles)


@dataclass(frozen=True)
class Bfloat16Pairs(_Pairs, Bfloat16Product):
    """`Bfloat16Product` in vectors of sums."""


@dataclass(frozen=True)
class Bfloat16MatrixPairs(_Pairs, Bfloat16MatrixProduct):
    """`Bfloat16MatrixProduct` in vectors of sums."""


def matrix_product(
    target: Target, rows: int, width: int, columns: int, channels: int, stride: int = 1
) -> Bfloat16MatrixProduct | None:
    """Products of activations where packing the right factor and tiles take fewer cycles than vectors of float32."""
    if columns < TILE_SIDE or width < 2:
        return None
    sizes = (rows, width, columns, channels, (1, 1), (stride, 1))
    packing = channels * columns / 2
    vectors = width * -(-columns // TILE_SIDE) * channels / 2
    if "amx-bf16" in target.features and (channels >= ROW_BYTES // 2 or channels % 2 == 0):
        p = Bfloat16MatrixProduct(*sizes)
        tiles = -(-width // TILE_SIDE) * -(-columns // TILE_SIDE) * (_PRODUCT * p.steps + _FINISH)
        if tiles + packing < vectors:
            return p
    if "avx512bf16" in target.features and channels > 1 and packing < vectors / 2:
        return Bfloat16MatrixPairs(*sizes)
    return None


def packed(array: Array, p: Bfloat16Product) -> Array:
    """Weights [..., channels, columns] tile by tile of columns: [tiles, ..., channels / 2, 16, 2]."""
    *front, channels, _ = array.shape
    starts = [p.first(tile) for tile in range(p.tiles)]
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

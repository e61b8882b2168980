"""A convolution as its templates see it (`Workload`), the tiles it can have (`Config`), what they read (`Operands`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from ....ir.windows import output_size
from ..intrinsics import MATRIX_PRODUCT
from ..intrinsics_arm64 import DEEP_SDOT
from ..schedule import best_tile, tiles
from .kernel import Kernel

__all__ = [
    "TILE_PRODUCT",
    "TILE_SIDE",
    "Config",
    "MatrixProduct",
    "Operands",
    "Workload",
    "choose",
    "config",
    "folded_bias",
    "space",
]

Array = npt.NDArray[np.generic]

TILE_PRODUCT = "planish.tdpbusd"  # what a workload for tile registers (AMX) has for an intrinsic
_VECTORS = 32  # registers of arm64
TILE_SIDE = 16  # rows of a tile register, and its columns of int32


@dataclass(frozen=True)
class Workload:
    """A 2-D convolution with one group, as a template sees it: sizes, window, what the machine offers; plain data."""

    batch: int
    channels: int
    size: tuple[int, int]
    filters: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    lanes: int
    depth: int  # products summed by one instruction into one lane; 1 without such an instruction
    intrinsic: str | None
    dtype: str  # type the instruction wants activations in
    registers: int  # vectors that may hold sums

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the result."""
        h, w = (
            output_size(
                self.size[d], self.kernel[d], self.strides[d], self.dilations[d], self.pads[d], self.pads[d + 2]
            )
            for d in (0, 1)
        )
        return h, w

    @property
    def padded_channels(self) -> int:
        return -(-self.channels // self.depth) * self.depth

    @property
    def padded_filters(self) -> int:
        return -(-self.filters // self.lanes) * self.lanes

    @property
    def position_tiles(self) -> int:
        """Tiles of positions where each row of results is cut into tiles by itself."""
        return self.batch * self.out[0] * -(-self.out[1] // TILE_SIDE)

    @property
    def joined_tiles(self) -> int:
        """Of these, how many may be in one block: those that have their weights in common."""
        return self.position_tiles

    @property
    def filter_tiles(self) -> int:
        return -(-self.filters // TILE_SIDE)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the axes of the results: image, row, column, filter."""
        return (self.batch, *self.out, self.filters)

    def axes(self, n: Any, h: Any, w: Any, o: Any) -> tuple[Any, ...]:
        """A result's index in `sizes`."""
        return n, h, w, o

    def result(self, *axes: Any) -> tuple[Any, Any, Any, Any]:
        """The image, row, column and filter at an index in `sizes`."""
        n, h, w, o = axes
        return n, h, w, o

    def channel(self, o: Any, c: Any) -> Any:
        """Where in its operand filter o reads its channel c."""
        return c

    def space(self) -> list[Config]:
        """See the function."""
        if self.intrinsic == TILE_PRODUCT:
            sides = [range(1, 1 + min(2, count)) for count in (self.joined_tiles, self.filter_tiles)]
            return [Config(*side) for side in product(*sides)]
        return [Config(*tile) for tile in tiles(*self._sums) if self._fits(*tile)]

    def choose(self) -> Config:
        """See the function."""
        if self.intrinsic == TILE_PRODUCT:
            return min(self.space(), key=lambda config: _tile_time(self, config))
        if self.intrinsic in DEEP_SDOT.values():
            return min(self.space(), key=_deep_time)
        return Config(*best_tile(*self._sums))

    def _fits(self, positions: int, vectors: int) -> bool:
        """Deep steps keep sums, a vector of each position and the weights of one vector of filters in 32 registers."""
        deep = self.intrinsic in DEEP_SDOT.values()
        return not deep or positions * vectors + positions + self.depth // 4 < _VECTORS

    @property
    def _sums(self) -> tuple[int, int, int]:
        """What `tiles` asks: a matrix product makes two positions by four filters, in two vectors."""
        pair = self.intrinsic in MATRIX_PRODUCT.values()
        width, groups = self.out[1], self.padded_filters // self.lanes
        return (width // 2, groups, self.registers // 2) if pair else (width, groups, self.registers)


@dataclass(frozen=True)
class MatrixProduct(Workload):
    """Products of two activations, one for each row of each image: columns are positions, filters of its own."""

    @property
    def joined_tiles(self) -> int:
        return -(-self.size[1] // TILE_SIDE)


@dataclass(frozen=True)
class Operands:
    """What a template reads, as TE tensors.

    data: NHWC in the instruction's type, at the index `at(image, row, column, channel)`; `pitch`: bytes from column to
    column, where they do not lie behind each other. packed: see `packing`. bias: starts of sums by filter; factors.
    own: packed, and bias where starts differ, have two more axes in front: those of each row of each image.
    rows: [image, row, column], or nothing: what all sums of a position have added at the end.
    """

    data: Any
    bias: Any = None
    factors: Any = None
    packed: Any = None
    rows: Any = None
    own: bool = False
    at: Callable[..., tuple[Any, ...]] = lambda *index: index
    pitch: int | None = None

    def weight(self, n: Any, h: Any, *index: Any) -> tuple[Any, ...]:
        """The index of `packed` for a row of an image."""
        return (n, h, *index) if self.own else index

    def start(self, n: Any, h: Any, o: Any) -> Any:
        """What the sum of a filter starts at."""
        return self.bias[(n, h, o)] if len(self.bias.shape) > 1 else self.bias[o]

    def filter(self, n: Any, o: Any) -> Any:
        """The index of `factors` for a filter of an image."""
        return o

    def moved(self, sum_: Any, n: Any, h: Any, w: Any) -> Any:
        """A sum with what its position adds."""
        return sum_ if self.rows is None else sum_ + self.rows[(n, h, w)]


@dataclass(frozen=True)
class Config:
    """A register tile: output positions (pairs of them for SMMLA, tiles of them for AMX) and vectors of filters."""

    positions: int
    vectors: int


def space(workload: Any) -> list[Any]:
    """Every config that computes the workload, of whatever kind; all give the same bits."""
    return list(workload.space())


def choose(workload: Any) -> Any:
    """The config that an analytic model of loads and registers prefers, without measuring."""
    return workload.choose()


def _deep_time(config: Config) -> float:
    """Cycles for each sum: what a tile costs once is shared by its sums; 16 filters are stored at once."""
    return 1 / (config.positions * config.vectors) + 0.01 * (config.vectors % 4 != 0)


def _tile_time(workload: Workload, config: Config) -> int:
    """Cycles of a step of the reduction in all blocks: 16 a product, 8 a load."""
    m, v = config.positions, config.vectors
    along = workload.position_tiles // workload.joined_tiles * -(-workload.joined_tiles // m)
    blocks = along * -(-workload.filter_tiles // v)
    return blocks * (16 * m * v + 8 * (m + v))


def config(kernel: Kernel, workload: Any) -> Any:
    """The config that the program was given for the workload, else the chosen one, which the program then lists."""
    return kernel.program.configs.setdefault(workload, choose(workload))


def folded_bias(kernel: Kernel, weight: Array, zero: int) -> Array:
    """The biases with −zero·Σw in them, modulo 2³² as sums are in any case; weight [O, I, R, S]."""
    assert kernel.op.bias is not None
    sums = weight.astype(np.int64).sum(axis=(1, 2, 3))
    bias: Array = (kernel.op.bias.astype(np.int64) - zero * sums).astype(np.int32)
    return bias

"""Convolutions by tile products (AMX): up to 16 positions × 64 bytes times 64 bytes × 16 filters an instruction.

Sums stay in tile registers for a block of tiles of positions by tiles of filters. A row of a tile is one position; its
bytes are channels that lie beside each other in memory, those of a row of the window included. The last tile of a row
of results, and the last block of tiles, overlap the ones before them instead of being smaller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ....targets.target import Target
from .. import parallel
from .kernel import Kernel, Templated
from .located import Located
from .tile_results import Corner, Results, arrays
from .workload import TILE_SIDE, Config, Operands, Workload, config

__all__ = ["DOTS", "pays", "products", "tile_product"]

Array = npt.NDArray[np.generic]

_BYTES = 64  # of a row of a tile register
# first register of each use: up to 2 × 2 tiles of sums, two of positions, two of filters
_SUMS, _POSITIONS, _WEIGHTS, _REGISTERS = 0, 4, 6, 8
DOTS = 8  # dot products of 64 bytes that take as long as a tile product
_PRODUCT, _ROW = 16, 8  # cycles of a tile product, and about those of finishing a row of its sums


@dataclass(frozen=True)
class _Shape:
    """The tiles of a convolution.

    rows: positions of a tile; across: tiles of a row of results; tiles: of all results; groups: tiles of filters;
    bytes: of a row of a tile; taps: rows and columns of the window to visit, with `steps` tiles of `bytes` behind each
    other at each of them: rows of the window are joined where they lie behind each other in memory.
    """

    rows: int
    across: int
    tiles: int
    groups: int
    bytes: int
    taps: tuple[int, int]
    steps: int


def _shape(p: Workload) -> _Shape | None:
    """How tiles cover the convolution; None where rows of tiles would be mostly empty."""
    width = p.out[1]
    rows, across = min(width, TILE_SIDE), -(-width // TILE_SIDE)
    joined = p.kernel[1] if p.dilations[1] == 1 else 1
    run = joined * p.padded_channels
    size = max(b for b in range(4, min(run, _BYTES) + 1, 4) if run % b == 0)
    taps = (p.kernel[0], p.kernel[1] // joined)
    if rows < TILE_SIDE // 4 or size < min(run, _BYTES) // 2:
        return None
    return _Shape(rows, across, p.position_tiles, p.filter_tiles, size, taps, run // size)


def pays(p: Workload, target: Target) -> bool:
    """Whether the machine has tiles and they need less time than dot products.

    A tile product takes as long as `DOTS` dot products of 64 bytes, however full the tile is.
    """
    shape = _shape(p) if "amx-int8" in target.features and p.dtype == "uint8" else None
    if shape is None:
        return False
    dots = p.batch * prod(p.out) * prod(p.kernel) * (p.padded_channels // p.depth) * (p.padded_filters // p.lanes)
    return DOTS * products(p) < dots


def products(p: Workload) -> int:
    """How many tile products a workload takes that tiles can do."""
    shape = _shape(p)
    assert shape is not None
    return shape.tiles * shape.groups * prod(shape.taps) * shape.steps


def tile_product(
    kernel: Kernel, p: Workload, x: Operands, finish: Any, out: Located, order: Sequence[int] = (0, 1, 2, 3)
) -> Located:
    """The results of a workload; order: which of image, row, column and filter each stored axis is.

    finish: not used: what sums become is computed from buffers here.
    """
    shape = _shape(p)
    assert shape is not None
    kernel.program.requires.add("tiles")
    added, levels = arrays(kernel, p)
    moved = [] if x.rows is None else [x.rows]
    reads = [x.data, x.bias, x.factors, x.packed, kernel.array(_configuration(shape), "tiles"), *moved, *added, *levels]
    chosen = config(kernel, p)
    size, dtype, declared = tuple(p.sizes[axis] for axis in order), kernel.result_type, kernel.tirx.decl_buffer

    def made(block: Config) -> Any:
        # Buffers of our own: the ones that TE declares have offsets that are variables.
        buffers = [declared(read.shape, read.dtype, read.op.name) for read in reads]
        named = replace(x, data=buffers[0], bias=buffers[1], factors=buffers[2], packed=buffers[3])
        named = replace(named, rows=buffers[5] if moved else None)
        body = _Body(kernel, p, shape, block, named, order)

        def statement(_: Any, writes: Any) -> Any:
            rest = buffers[5 + len(moved) :]
            return body.statement(buffers[4], (rest[: len(added)], rest[len(added) :]), writes[0])

        return kernel.te.extern([size], reads, statement, "out", [dtype], buffers, [declared(size, dtype, "out")])

    return kernel.tiled(Templated(made(chosen), out, p, chosen, lambda _, other: kernel.function(made(other))))


def _configuration(shape: _Shape) -> Array:
    """What LDTILECFG reads: rows and bytes a row of each register; sums first, then positions, then filters."""
    raw = np.zeros(64, np.uint8)
    raw[0] = 1  # palette
    columns, rows = raw[16:48].view(np.uint16), raw[48:64]
    columns[:_REGISTERS], rows[:_WEIGHTS] = _BYTES, shape.rows
    columns[_POSITIONS:_WEIGHTS], rows[_WEIGHTS:_REGISTERS] = shape.bytes, shape.bytes // 4
    return raw


class _Body:
    """The statement that computes all results, from the buffers of the kernel's arguments."""

    def __init__(
        self, kernel: Kernel, p: Workload, shape: _Shape, block: Config, operands: Operands, order: Sequence[int]
    ) -> None:
        self.kernel, self.tirx, self.p, self.shape, self.block = kernel, kernel.tirx, p, shape, block
        self.x, self.stored = operands, order

    def statement(self, tiles: Any, ends: tuple[Sequence[Any], Sequence[Any]], out: Any) -> Any:
        """All blocks, between setting up the tile registers and nothing: the caller of the kernels releases them."""
        tirx, shape, block, joined = self.tirx, self.shape, self.block, self.p.joined_tiles
        together = -(-joined // block.positions)
        by_positions, by_filters = shape.tiles // joined * together, -(-shape.groups // block.vectors)
        index = tirx.Var("block", "int32")
        scratch = tirx.decl_buffer((block.positions * block.vectors, TILE_SIDE, TILE_SIDE), "int32", "sums")
        along, across = self._order(index, by_positions, by_filters)
        start = tirx.min(tirx.floormod(along, together) * block.positions, joined - block.positions)
        first = tirx.floordiv(along, together) * joined + start
        group = tirx.min(across * block.vectors, shape.groups - block.vectors)
        corners = [self._corner(first + i) for i in range(block.positions)]
        results = Results(self.kernel, self.p, (shape.rows, shape.groups, self._pairs()), self.x, self.stored, ends)
        body = [
            tirx.AllocBuffer(scratch),
            *self._begun(corners, group),
            self._reduction(corners, group),
            *self._spilled(scratch),
            *results.statements(scratch, corners, group, out),
        ]
        count = by_positions * by_filters
        steps = prod(shape.taps) * shape.steps
        cycles = count * len(self._pairs()) * (steps * _PRODUCT + shape.rows * _ROW)
        shared = count >= self.kernel.target.threads > 1 and cycles >= parallel.SMALLEST
        kind = tirx.ForKind.PARALLEL if shared else tirx.ForKind.SERIAL
        loop = tirx.For(index, 0, count, kind, tirx.SeqStmt(body))
        return tirx.SeqStmt([self._do("ldtilecfg", tirx.address_of(tiles[0])), loop])

    def _order(self, index: Any, by_positions: int, by_filters: int) -> tuple[Any, Any]:
        """Block of positions and block of filters; the outer ones are what threads share.

        Positions where feature maps are larger than the weights: threads then read the rows that they have written
        themselves. Filters where weights are larger: each thread keeps its own in its cache.
        """
        tirx, p = self.tirx, self.p
        maps = p.batch * (prod(p.size) * p.channels + prod(p.out) * p.filters)
        if maps > prod(p.kernel) * p.channels * p.filters:
            return tirx.floordiv(index, by_filters), tirx.floormod(index, by_filters)
        return tirx.floormod(index, by_positions), tirx.floordiv(index, by_positions)

    def _do(self, name: str, *arguments: Any) -> Any:
        return self.tirx.Evaluate(self.tirx.call_llvm_intrin("int32", f"llvm.x86.{name}", *arguments))

    def _begun(self, corners: list[Corner], group: Any) -> Iterator[Any]:
        """Sums begin at the biases of their filters, the same ones in each row of a tile."""
        for number, (i, j) in enumerate(self._pairs()):
            n, h, _ = corners[i]
            biases = self.tirx.address_of(self.x.start(n, h, (group + j) * TILE_SIDE))
            yield self._do("tileloadd64", self._register(_SUMS + number), biases, self.tirx.const(0, "int64"))

    def _register(self, number: int) -> Any:
        return self.tirx.const(number, "int8")

    def _pairs(self) -> list[tuple[int, int]]:
        """Tile of positions and tile of filters of each tile of sums."""
        return [(i, j) for i in range(self.block.positions) for j in range(self.block.vectors)]

    def _corner(self, tile: Any) -> Corner:
        """Image, row and first position of a tile of results."""
        tirx, shape, (height, width) = self.tirx, self.shape, self.p.out
        row = tirx.floordiv(tile, shape.across)
        start = tirx.min(tirx.floormod(tile, shape.across) * TILE_SIDE, width - shape.rows)
        return tirx.floordiv(row, height), tirx.floormod(row, height), start

    def _reduction(self, corners: list[Corner], group: Any) -> Any:
        """Load and multiply, tap by tap of the window and step by step of what lies behind it."""
        tirx, p, shape, operands = self.tirx, self.p, self.shape, self.x
        r, s, k = (tirx.Var(name, "int32") for name in "rsk")
        over, channel = tirx.floordiv(k * shape.bytes, p.padded_channels), k * shape.bytes % p.padded_channels
        pitch = tirx.const(operands.pitch or p.strides[1] * p.padded_channels, "int64")
        image, line, _ = corners[0]
        body = []
        for i, (n, h, w) in enumerate(corners):
            y, x = h * p.strides[0] + r * p.dilations[0], w * p.strides[1] + s * p.dilations[1] + over
            place = tirx.address_of(operands.data[operands.at(n, y, x, channel)])
            body.append(self._do("tileloadd64", self._register(_POSITIONS + i), place, pitch))
        for j in range(self.block.vectors):
            index = operands.weight(image, line, group + j, r, s + over, tirx.floordiv(channel, 4), 0, 0)
            place = tirx.address_of(operands.packed[index])
            body.append(self._do("tileloadd64", self._register(_WEIGHTS + j), place, tirx.const(_BYTES, "int64")))
        for number, (i, j) in enumerate(self._pairs()):
            registers = (_SUMS + number, _POSITIONS + i, _WEIGHTS + j)
            body.append(self._do("tdpbusd", *(self._register(k) for k in registers)))
        nest = tirx.SeqStmt(body)
        for variable, extent in ((k, shape.steps), (s, shape.taps[1]), (r, shape.taps[0])):
            nest = tirx.For(variable, 0, extent, tirx.ForKind.SERIAL, nest)
        return nest

    def _spilled(self, scratch: Any) -> Iterator[Any]:
        pitch = self.tirx.const(4 * TILE_SIDE, "int64")
        for number in range(len(self._pairs())):
            place = self.tirx.address_of(scratch[number, 0, 0])
            yield self._do("tilestored64", self._register(_SUMS + number), place, pitch)

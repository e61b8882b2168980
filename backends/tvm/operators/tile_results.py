"""From sums in tiles to results: multiplier, residual and levels, for four rows of sums at once where they are bytes.

Narrowing twice, 32 bits to 16 to 8, saturates: only what is not the type's own bound is clipped. Four vectors of
sixteen sums become one of bytes, whose words of four are then put in the order of the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ....ir.quantization import integer_range
from .epilogue import residual_arrays, with_residual
from .kernel import Kernel
from .workload import TILE_SIDE, Operands, Workload

__all__ = ["Results", "arrays"]

_TOGETHER = 4  # vectors of sums
_PACK = {"uint8": "llvm.x86.avx512.packuswb.512", "int8": "llvm.x86.avx512.packsswb.512"}
# Packing works within quarters of a register: word 4q + v of its result is word q of vector v.
_ORDER = [_TOGETHER * quarter + vector for vector in range(_TOGETHER) for quarter in range(4)]

Corner = tuple[Any, Any, Any]  # image, row and first position of a tile of results


def arrays(kernel: Kernel, p: Workload) -> tuple[list[Any], list[Any]]:
    """What `Results` reads: for a residual, and for levels."""
    return residual_arrays(kernel, p.sizes), _narrowing(kernel)


def _narrowing(kernel: Kernel) -> list[Any]:
    """The zero point, the lowest and the highest level, those of them that change anything."""
    encoding = kernel.last.encoding
    if encoding is None:
        return []
    lowest, highest = integer_range(encoding.dtype)
    numbers = [
        ("zero_point", int(encoding.zero_point.reshape(-1)[0]), 0, "int16"),
        ("low", int(kernel.last.low), lowest, kernel.result_type),
        ("high", int(kernel.last.high), highest, kernel.result_type),
    ]
    return [kernel.array(np.array([n], dtype), name) for name, n, without, dtype in numbers if n != without]


class Results:
    """The statements that store the results of a block of tiles.

    rows: of a tile; groups: tiles of filters; pairs: tile of positions and tile of filters of each tile of sums;
    stored: which of the axes of the results each stored axis is; ends: buffers of `arrays`.
    """

    def __init__(
        self,
        kernel: Kernel,
        p: Workload,
        tiles: tuple[int, int, list[tuple[int, int]]],
        operands: Operands,
        stored: Sequence[int],
        ends: tuple[Sequence[Any], Sequence[Any]],
    ) -> None:
        self.kernel, self.tirx, self.p, self.x, self.stored = kernel, kernel.tirx, p, operands, stored
        self.rows, self.groups, self.pairs = tiles
        self.added, self.levels = ends
        self.packs = kernel.result_type in _PACK

    def statements(self, sums: Any, corners: list[Corner], group: Any, out: Any) -> Iterator[Any]:
        """Row by row of each tile; fewer filters in the last tile where they end there."""
        row = self.tirx.Var("row", "int32")
        together = _TOGETHER // len(self.pairs) if self.packs else 1
        whole, rest = divmod(self.rows, together)

        def stores(first: Any, count: int) -> list[Any]:
            vectors = [(first + i, *pair) for i in range(count) for pair in enumerate(self.pairs)]
            return self._stores(vectors, sums, corners, group, out)

        if whole:
            body = self._sequence(stores(row * together, together))
            yield self.tirx.For(row, 0, whole, self.tirx.ForKind.SERIAL, body)
        if rest:
            yield from stores(whole * together, rest)

    def _stores(
        self, vectors: list[tuple[Any, int, tuple[int, int]]], sums: Any, corners: list[Corner], group: Any, out: Any
    ) -> list[Any]:
        """Vectors of one row of a tile each: row, number of the tile of sums, its pair."""
        places = [(*corners[i][:2], corners[i][2] + row, group + j) for row, _, (i, j) in vectors]
        values = [
            self._scaled(sums[number, row, self._lanes(0, TILE_SIDE)], place)
            for (row, number, _), place in zip(vectors, places, strict=True)
        ]
        if not self.packs:
            return [self._store(out, place, value, 0) for place, value in zip(places, values, strict=True)]
        words = self.tirx.Var("words", "int32x16")
        stores = [self._store(out, place, words, k) for k, place in enumerate(places)]
        return [self.tirx.Bind(words, self._packed(values)), *stores]

    def _scaled(self, sums: Any, place: tuple[Any, ...]) -> Any:
        """A vector of sums, which began at the biases, as levels that are not rounded yet; place: its last part is a
        tile of filters.
        """
        n, h, w, tile = place
        o = self._lanes(tile * TILE_SIDE, TILE_SIDE)
        scaled = self.kernel.cast(self.x.moved(sums, n, h, w), "float32") * self.x.factors[self.x.filter(n, o)]
        return with_residual(self.kernel, self.added, scaled, self.p.axes(n, h, w, o))

    def _packed(self, values: Sequence[Any]) -> Any:
        """Up to four vectors as levels of 8 bits, vector behind vector, in words of four."""
        tirx, dtype = self.tirx, self.kernel.result_type
        filled = [values[k % len(values)] for k in range(_TOGETHER)]
        whole = [self._call("int32x16", "llvm.lrint", self._representable(value)) for value in filled]
        halves = [self._call("int16x32", "llvm.x86.avx512.packssdw.512", *whole[k : k + 2]) for k in (0, 2)]
        bounds = {buffer.name: buffer[0] for buffer in self.levels}
        if "zero_point" in bounds:
            zero = tirx.Broadcast(bounds["zero_point"], 32)
            halves = [self._call("int16x32", "llvm.sadd.sat", half, zero) for half in halves]
        levels = self._call(f"{dtype}x64", _PACK[dtype], *halves)
        if "low" in bounds:
            levels = tirx.max(levels, tirx.Broadcast(bounds["low"], 64))
        if "high" in bounds:
            levels = tirx.min(levels, tirx.Broadcast(bounds["high"], 64))
        return tirx.Shuffle([tirx.reinterpret("int32x16", levels)], _ORDER)

    def _representable(self, value: Any) -> Any:
        """What rounds to 32 bits: beyond them it would change its sign."""
        factors = self.kernel.op.multiplier
        assert factors is not None
        small = self.kernel.residual is not None or bool((factors < 1).all())
        return value if small else self.tirx.min(value, self.tirx.Broadcast(self.tirx.const(2.0**30, "float32"), 16))

    def _store(self, out: Any, place: tuple[Any, ...], values: Any, number: int) -> Any:
        """Store results of a place: a vector of floats, or of the words of four vectors the one of this number."""
        n, h, w, tile = place
        vector = values
        if self.packs:
            own = self.tirx.Shuffle([values], list(range(4 * number, 4 * number + 4)))
            vector = self.tirx.reinterpret(f"{self.kernel.result_type}x16", own)

        def piece(start: int, count: int) -> Any:
            index = self.p.axes(n, h, w, self._lanes(tile * TILE_SIDE + start, count))
            part = vector if count == TILE_SIDE else self.tirx.Shuffle([vector], list(range(start, start + count)))
            return self.tirx.BufferStore(out, part, [index[axis] for axis in self.stored])

        left = self.p.filters % TILE_SIDE
        whole = piece(0, TILE_SIDE)
        if not left:
            return whole
        width = next(width for width in (8, 4, 2, 1) if left % width == 0)
        pieces = self._sequence([piece(start, width) for start in range(0, left, width)])
        return self.tirx.IfThenElse(tile == self.groups - 1, pieces, whole)

    def _lanes(self, start: Any, count: int) -> Any:
        return start if count == 1 else self.tirx.Ramp(start, 1, count)

    def _call(self, dtype: str, name: str, *arguments: Any) -> Any:
        return self.tirx.call_llvm_pure_intrin(dtype, name, *arguments)

    def _sequence(self, statements: list[Any]) -> Any:
        return statements[0] if len(statements) == 1 else self.tirx.SeqStmt(statements)

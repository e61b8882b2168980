"""The right factor of a product of two bfloat16 activations as tile registers read it, packed in every run.

A word holds two channels of a column: [batch…, tiles of columns, pairs of channels, 16 columns].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..fusion import OPAQUE
from ..operators.workload import TILE_SIDE
from .bfloat16_product import Bfloat16MatrixProduct

__all__ = ["WORD", "element", "words"]

WORD = "uint32"


def words(builder: Any, tensor: Any, order: Sequence[int], p: Bfloat16MatrixProduct) -> Any:
    """The Relax value of the packed words of a tensor that holds [batch…, k, n], its axes in that order."""
    from tvm import relax, te

    batch = [int(tensor.ty.shape[axis]) for axis in order[:-2]]
    beside = order[-2] == len(order) - 1 and p.channels % 2 == 0  # both channels of a word lie in one
    if beside:
        halves = [int(extent) for extent in tensor.ty.shape]
        halves[-1] //= 2
        tensor = builder.emit(relax.op.memory.view(tensor, relax.ShapeExpr(halves), WORD))
    shape = [*batch, *p.packed_shape]

    def pack(source: Any) -> Any:
        def read(index: Sequence[Any]) -> Any:
            return source(*(index[order.index(axis)] for axis in range(len(order))))

        def word(*index: Any) -> Any:
            *outer, tile, row, lane = index
            step, pair = row // (p.step // 2), row % (p.step // 2)
            channel = _start(step * p.step, p.channels - p.step) + 2 * pair
            column = _first(p, tile) + lane
            if beside:
                return _unless(channel < step * p.step, read([*outer, channel // 2, column]), p)
            low, high = (
                _unless(channel + i < step * p.step, _bits(read([*outer, channel + i, column])), p) for i in (0, 1)
            )
            return low + high * 65536

        return te.compute(shape, word, name="packed")

    # A conversion that is fused before it would hide the bits.
    return builder.emit_te(pack, tensor, primfunc_name_hint="pack", primfunc_attrs={"op_pattern": OPAQUE})


def element(packed: Any, p: Bfloat16MatrixProduct, batch: Sequence[Any], k: Any, n: Any) -> Any:
    """Channel k of column n among packed words, in float32."""
    from tvm import tirx

    vectors = p.tiles if p.tiles * TILE_SIDE == p.columns else p.choose().vectors
    size = TILE_SIDE * vectors
    column = n - _start(n // size * size, p.columns - size)
    step = k // p.step
    channel = k - _start(step * p.step, p.channels - p.step)
    row = step * (p.step // 2) + channel // 2
    word = packed(*batch, n // size * vectors + column // TILE_SIDE, row, column % TILE_SIDE)
    half = tirx.shift_right(word, (channel % 2 * 16).astype(WORD))
    return tirx.reinterpret("float32", half * 65536)


def _first(p: Bfloat16MatrixProduct, tile: Any) -> Any:
    """`Bfloat16Product.first` of a tile that is computed."""
    vectors = p.choose().vectors if p.columns % TILE_SIDE else 1
    start = _start(tile // vectors * (TILE_SIDE * vectors), p.columns - TILE_SIDE * vectors)
    return start + tile % vectors * TILE_SIDE


def _start(value: Any, last: int) -> Any:
    """Where a block starts, the last of which may overlap the one before."""
    from tvm import tirx

    return tirx.min(value, tirx.const(last, str(value.ty.dtype)))


def _unless(again: Any, word: Any, p: Bfloat16MatrixProduct) -> Any:
    """Zero where a step sums `again` what the one before it has summed."""
    from tvm import tirx

    return word if p.channels % p.step == 0 else tirx.if_then_else(again, tirx.const(0, WORD), word)


def _bits(value: Any) -> Any:
    from tvm import tirx

    return tirx.reinterpret("uint16", value).astype(WORD)

"""Loop schedules of PrimFuncs that have none: vector loops innermost, sums of products in register tiles."""

from __future__ import annotations

from typing import Any

from ...targets.target import Target
from .blocks import extents
from .expressions import operands
from .inlining import inline_elementwise
from .row_wise import rows_at_once
from .transposing import tile_transposed

__all__ = [
    "best_tile",
    "finish",
    "is_product",
    "lanes_of",
    "overlapping_tiles",
    "product_lanes",
    "reduction",
    "register_tile",
    "registers",
    "schedule",
    "step_cycles",
    "tail",
    "tile_cycles",
    "tiles",
]

_UNROLLED = 16  # at most this many output positions in a register tile
_VECTORS = 8  # and so many vectors
_LATENCY = 4.0  # cycles from a product to the next one on the same sum, on the cores of the last ten years
_PIPES = 2  # vector units that multiply, and loads, in a cycle


def tiles(width: int, vectors: int, sums: int) -> list[tuple[int, int]]:
    """Output positions and vectors of the register tiles that divide a row of results and fit.

    width: positions in a row; vectors: vectors of results at one position; sums: how many registers may hold them.
    """
    return [
        (w, v)
        for w in range(1, min(width, _UNROLLED) + 1)
        for v in range(1, _VECTORS + 1)
        if width % w == 0 and vectors % v == 0 and w * v <= sums
    ]


def best_tile(width: int, vectors: int, sums: int) -> tuple[int, int]:
    """The tile with the fewest loads for each product; see `tiles`."""
    return min(tiles(width, vectors, sums), key=lambda p: ((p[0] + p[1]) / (p[0] * p[1]), p[1]))


def overlapping_tiles(width: int, vectors: int, sums: int) -> list[tuple[int, int]]:
    """`tiles` that need not divide, where the last may overlap the one before; vectors: whole ones."""
    return [
        (w, v)
        for w in range(1, min(width, _UNROLLED) + 1)
        for v in range(1, min(vectors, _VECTORS) + 1)
        if w * v <= sums
    ]


def tile_cycles(width: int, vectors: int, w: int, v: int) -> tuple[float, float]:
    """Cycles of a step of the sums of a row of results in tiles, what overlaps included, and loads for each product."""
    return -(-width // w) * -(-vectors // v) * step_cycles(w * v, w + v), (w + v) / (w * v)


def step_cycles(products: int, loads: int) -> float:
    """Cycles in which sums in registers take so many products and loads, bound by either or by the latency of a sum."""
    return max(products / _PIPES, loads / _PIPES, _LATENCY)


def schedule(function: Any, target: Target) -> Any:
    """A scheduled copy of a PrimFunc; one reduction with an elementwise tail is tiled, anything else is vectorised."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    block = reduction(sch)
    if block is not None:
        lanes = product_lanes(sch, block, target)
        result = tail(sch, block) if lanes else None
        if lanes and result is not None:
            *_, width, columns = extents(sch, block, summed=False)
            register_tile(sch, block, result, lanes, best_tile(width, columns // lanes, registers(target)))
        elif lanes is None and is_product(sch, block):
            _channels_innermost(sch, block, len(extents(sch, block, summed=False)))
    else:
        inline_elementwise(sch)
        rows_at_once(sch)
    finish(sch, target)
    return sch.mod["main"]


def reduction(sch: Any) -> Any | None:
    """The only block that sums, after inlining what is elementwise around it; None where there are several or none."""
    blocks = list(sch.get_child_blocks(sch.get_sblock("root")))
    found = [block for block in blocks if extents(sch, block, summed=True)]
    if len(found) != 1:
        return None
    _inline(sch, blocks, found[0])
    return found[0]


def finish(sch: Any, target: Target) -> None:
    """Vectors for every block that does not sum, and that LLVM gets right in vectors."""
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        plain = not extents(sch, block, summed=True) and not _is_logical(getattr(sch.get(block).body, "value", None))
        if plain and not tile_transposed(sch, block, target):
            _vectorize(sch, block, lanes_of(target))


def _is_logical(value: Any) -> bool:
    """An expression computes with truth values: TVM 0.27 mixes vectors of bits and bytes there and negates bytes."""
    from tvm import tirx

    if isinstance(value, (tirx.Not, tirx.And, tirx.Or, tirx.BitwiseNot)):
        return True
    return any(map(_is_logical, operands(value)))


def lanes_of(target: Target) -> int:
    """Float32 lanes of the widest vectors."""
    if target.triple.startswith("x86_64"):
        return 16 if "avx512f" in target.features else 8 if "avx2" in target.features else 4
    return 4


def registers(target: Target) -> int:
    """Vector registers that may hold sums: 32 or 16, less what loads need."""
    wide = not target.triple.startswith("x86_64") or "avx512f" in target.features
    return 24 if wide else 12


def _inline(sch: Any, blocks: list[Any], summing: Any) -> None:
    """Elementwise blocks go into their readers, but for what the reduction reads (padding) and the result."""
    padding = [block for block in sch.get_producers(summing) if not _is_copy(sch, block)]
    kept = {sch.get(block).name_hint for block in (*padding, summing, blocks[-1])}
    for block in blocks:
        if sch.get(block).name_hint not in kept:
            sch.compute_inline(block)


def _is_copy(sch: Any, block: Any) -> bool:
    """The block copies element by element: TVM's padding by nothing."""
    from tvm.ir import TensorLoad

    stated = sch.get(block)
    value = getattr(stated.body, "value", None)
    if not isinstance(value, TensorLoad) or len(value.indices) != len(stated.iter_vars):
        return False
    return all(index.same_as(axis.var) for index, axis in zip(value.indices, stated.iter_vars, strict=True))


def is_product(sch: Any, block: Any) -> bool:
    """A float32 sum over at least two axes' results, with at most one reader, of the same shape."""
    spatial, consumers = extents(sch, block, summed=False), sch.get_consumers(block)
    if str(sch.get(block).writes[0].source.dtype) != "float32" or len(consumers) > 1 or len(spatial) < 2:
        return False
    return not consumers or extents(sch, consumers[0], summed=False) == spatial


def product_lanes(sch: Any, block: Any, target: Target) -> int | None:
    """The widest vector that divides the last axis of a product; None where none does, or where it is no product."""
    if not is_product(sch, block):
        return None
    columns = extents(sch, block, summed=False)[-1]
    return next((lane for lane in (lanes_of(target), 8, 4) if columns % lane == 0), None)


def tail(sch: Any, block: Any) -> Any:
    """The block that reads the sums, or a copy of them to the result."""
    consumers = sch.get_consumers(block)
    return consumers[0] if consumers else sch.cache_write(block, 0, "global")


def register_tile(
    sch: Any,
    block: Any,
    result: Any,
    lanes: int,
    tile: tuple[int, int],
    *,
    columns_first: bool = False,
    row: int | None = None,
) -> tuple[Any, Any]:
    """Sums of some positions and vectors in registers; returns the loops that count tiles of both.

    Vectors lie along the last axis, positions along axis `row`, the one before it unless given; `columns_first`:
    outermost by columns.
    """
    positions, vectors = tile
    *outer, o = sch.get_loops(result)
    row = len(outer) - 1 if row is None else row
    w = outer.pop(row)
    wo, wi = sch.split(w, [None, positions])
    oo, oi = sch.split(o, [None, lanes * vectors])
    sch.reorder(*([oo, *outer] if columns_first else [*outer, oo]), wo, wi, oi)
    sch.unroll(wi)
    sch.vectorize(sch.split(oi, [None, lanes])[1])
    sch.compute_at(block, wo, preserve_unit_loops=True)
    loops = sch.get_loops(block)
    depth = len(extents(sch, block, summed=True))
    inner, summed = loops[-depth - len(outer) - 2 : -depth], loops[-depth:]
    aw = inner[row]
    vector, lane = sch.split(inner[-1], [None, lanes])
    sch.reorder(*summed, aw, vector, lane)
    sch.unroll(aw)
    sch.unroll(vector)
    sch.vectorize(lane)
    *_, zero_position, zero_vector, zero_lane = sch.get_loops(sch.decompose_reduction(block, summed[0]))
    sch.unroll(zero_position)
    sch.unroll(zero_vector)
    sch.vectorize(zero_lane)
    return wo, oo


def _channels_innermost(sch: Any, block: Any, spatial: int) -> None:
    """Reduce over rows of results, which LLVM vectorises with a scalar tail."""
    loops = sch.get_loops(block)
    sch.reorder(*loops[: spatial - 1], *loops[spatial:], loops[spatial - 1])
    sch.decompose_reduction(block, loops[spatial])


def _vectorize(sch: Any, block: Any, lanes: int) -> None:
    """The innermost loop in vectors, where one fits and the block is a plain loop nest."""
    loops = sch.get_loops(block)
    if not loops or sch.get(loops[-1]).kind != 0 or not hasattr(sch.get(loops[-1]).body, "iter_values"):
        return
    extent = int(sch.get(loops[-1]).extent)
    width = next((lane for lane in (lanes, 8, 4) if extent % lane == 0), None)
    if width:
        sch.vectorize(sch.split(loops[-1], [None, width])[1])

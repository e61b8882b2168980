"""Loop schedules of PrimFuncs that have none: vector loops innermost, sums of products in register tiles."""

from __future__ import annotations

from typing import Any

from ...targets.target import Target

__all__ = ["best_tile", "registers", "schedule", "tiles"]

_UNROLLED = 16  # at most this many output positions in a register tile
_REDUCTION = 2  # tirx.IterVar.CommReduce


def tiles(width: int, vectors: int, sums: int) -> list[tuple[int, int]]:
    """Output positions and vectors of the register tiles that divide a row of results and fit.

    width: positions in a row; vectors: vectors of results at one position; sums: how many registers may hold them.
    """
    return [
        (w, v)
        for w in range(1, min(width, _UNROLLED) + 1)
        for v in (1, 2, 3, 4, 6, 8)
        if width % w == 0 and vectors % v == 0 and w * v <= sums
    ]


def best_tile(width: int, vectors: int, sums: int) -> tuple[int, int]:
    """The tile with the fewest loads for each product; see `tiles`."""
    return min(tiles(width, vectors, sums), key=lambda p: ((p[0] + p[1]) / (p[0] * p[1]), p[1]))


def schedule(function: Any, target: Target) -> Any:
    """A scheduled copy of a PrimFunc; one reduction with an elementwise tail is tiled, anything else is vectorised."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    blocks = list(sch.get_child_blocks(sch.get_sblock("root")))
    reductions = [block for block in blocks if _extents(sch, block, reduction=True)]
    if len(reductions) == 1:
        _inline(sch, blocks, reductions[0])
        _tile(sch, reductions[0], target)
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        if not _extents(sch, block, reduction=True):
            _vectorize(sch, block, _lanes(target))
    return sch.mod["main"]


def _lanes(target: Target) -> int:
    if target.triple.startswith("x86_64"):
        return 16 if "avx512f" in target.features else 8 if "avx2" in target.features else 4
    return 4


def registers(target: Target) -> int:
    """Vector registers that may hold sums: 32 or 16, less what loads need."""
    wide = not target.triple.startswith("x86_64") or "avx512f" in target.features
    return 24 if wide else 12


def _extents(sch: Any, block: Any, *, reduction: bool) -> list[int]:
    """Extents of the block's reduction axes, or of its data-parallel ones."""
    axes = sch.get(block).iter_vars
    return [int(axis.dom.extent) for axis in axes if (int(axis.iter_type) == _REDUCTION) == reduction]


def _inline(sch: Any, blocks: list[Any], reduction: Any) -> None:
    """Elementwise blocks go into their readers, but for what the reduction reads (padding) and the result."""
    kept = {sch.get(block).name_hint for block in (*sch.get_producers(reduction), reduction, blocks[-1])}
    for block in blocks:
        if sch.get(block).name_hint not in kept:
            sch.compute_inline(block)


def _tile(sch: Any, block: Any, target: Target) -> None:
    """Split the last two data-parallel axes into a register tile and reduce inside it."""
    spatial = _extents(sch, block, reduction=False)
    consumers = sch.get_consumers(block)
    dtype = str(sch.get(block).writes[0].source.dtype)
    if dtype != "float32" or len(consumers) > 1 or len(spatial) < 2:
        return
    if consumers and _extents(sch, consumers[0], reduction=False) != spatial:
        return
    lanes = next((lane for lane in (_lanes(target), 8, 4) if spatial[-1] % lane == 0), None)
    if lanes is None:
        _channels_innermost(sch, block, len(spatial))
        return
    result = consumers[0] if consumers else sch.cache_write(block, 0, "global")
    positions, vectors = best_tile(spatial[-2], spatial[-1] // lanes, registers(target))
    *outer, w, o = sch.get_loops(result)
    wo, wi = sch.split(w, [None, positions])
    oo, oi = sch.split(o, [None, lanes * vectors])
    sch.reorder(*outer, oo, wo, wi, oi)
    sch.unroll(wi)
    sch.vectorize(sch.split(oi, [None, lanes])[1])
    sch.compute_at(block, wo, preserve_unit_loops=True)
    loops = sch.get_loops(block)
    depth = len(_extents(sch, block, reduction=True))
    (aw, ao), reduction = loops[-depth - 2 : -depth], loops[-depth:]
    vector, lane = sch.split(ao, [None, lanes])
    sch.reorder(*reduction, aw, vector, lane)
    sch.unroll(aw)
    sch.unroll(vector)
    sch.vectorize(lane)
    *_, zero_position, zero_vector, zero_lane = sch.get_loops(sch.decompose_reduction(block, reduction[0]))
    sch.unroll(zero_position)
    sch.unroll(zero_vector)
    sch.vectorize(zero_lane)


def _channels_innermost(sch: Any, block: Any, spatial: int) -> None:
    """Reduce over rows of results, which LLVM vectorises with a scalar tail."""
    loops = sch.get_loops(block)
    sch.reorder(*loops[: spatial - 1], *loops[spatial:], loops[spatial - 1])
    sch.decompose_reduction(block, loops[spatial])


def _vectorize(sch: Any, block: Any, lanes: int) -> None:
    """The innermost loop in vectors, where one fits and the block is a plain loop nest."""
    loops = sch.get_loops(block)
    if not loops or sch.get(loops[-1]).kind != 0:
        return
    extent = int(sch.get(loops[-1]).extent)
    width = next((lane for lane in (lanes, 8, 4) if extent % lane == 0), None)
    if width:
        sch.vectorize(sch.split(loops[-1], [None, width])[1])

"""Loops of blocks that read along another axis than they write: square tiles, brought near along the axis read.

`y[…, r, …, a] = f(x[…, a, …, r])`: a vector of results along a lies in as many places of x, far apart. A tile of x is
copied in vectors along r first, so that every cache line of either side is touched once.
"""

from __future__ import annotations

from typing import Any

from ...targets.target import Target
from .blocks import is_data_parallel

__all__ = ["tile_transposed"]

_SIDES = (16, 8, 4)  # of a tile: 16 float32 are a line of the cache, and the tile stays on the stack


def tile_transposed(sch: Any, block: Any, target: Target) -> bool:
    """Schedule a data-parallel block that reads one buffer transposed; False, and nothing done, for any other."""
    found = None if target.kind == "hexagon" else _transposed(sch, block)  # LLVM takes its float vectors apart
    if found is None:
        return False
    position, axis = found
    source = sch.get(block).reads[position].source
    if sum(sch.get(made).writes[0].source.same_as(source) for made in sch.get_producers(block)) > 1:
        return False  # a sum that begins in a block of its own
    loops = sch.get_loops(block)
    if len(loops) != len(sch.get(block).iter_vars):
        return False
    along, across = loops[-1], loops[axis]
    sides = [_side(int(sch.get(loop).extent)) for loop in (along, across)]
    if None in sides:
        return False
    near = sch.cache_read(block, position, "global", consumer_blocks=[block])
    across_outer, across_inner = sch.split(across, [None, sides[1]])
    along_outer, along_inner = sch.split(along, [None, sides[0]])
    outer = [loop for i, loop in enumerate(loops[:-1]) if i != axis]
    sch.reorder(*outer, across_outer, along_outer, across_inner, along_inner)
    sch.compute_at(near, along_outer, preserve_unit_loops=True)
    copied = sch.get_loops(near)[-len(sch.get(near).iter_vars) :]
    sch.vectorize(copied[-1])
    sch.unroll(across_inner)
    sch.vectorize(along_inner)
    return True


def _side(extent: int) -> int | None:
    return next((side for side in _SIDES if extent % side == 0), None)


def _transposed(sch: Any, block: Any) -> tuple[int, int] | None:
    """Which read has its last axis along another axis than the last one of the result, and along which."""
    from tvm import tirx

    stated = sch.get(block)
    axes = [axis.var for axis in stated.iter_vars]
    if len(axes) < 2 or len(stated.writes) != 1 or not is_data_parallel(stated):
        return None
    found = []
    for position, read in enumerate(stated.reads):
        used = [tirx.analysis.undefined_vars(part.min) for part in read.region]
        exact = all(int(part.extent) == 1 for part in read.region)
        if not exact or len(used) < 2 or len(used[-1]) != 1 or axes[-1] in used[-1]:
            continue
        inside = [v for place in used[:-1] for v in place]
        if axes[-1] in inside and used[-1][0] in axes:
            found.append((position, next(i for i, axis in enumerate(axes) if axis.same_as(used[-1][0]))))
    return found[0] if len(found) == 1 else None

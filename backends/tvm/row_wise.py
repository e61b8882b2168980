"""Kernels that sum rows and read them again (softmax, normalisations): sums in lanes, and one row after the other.

A sum along memory waits for its last addition at every element. `in_lanes` makes it `LANES` sums side by side, which
are then added up: the same order on every machine and under every schedule. `rows_at_once` computes everything that a
row of results needs just before the row.
"""

from __future__ import annotations

from math import prod
from typing import Any

from .blocks import is_summed, summed

__all__ = ["in_lanes", "rows_at_once"]

_LANES = (16, 8, 4)  # sums side by side, the first that divides the row; 16 float32 are the widest vector there is
_QUARTERS = 4  # the lanes are added up in so many sums, so that fewer additions wait for each other
_TOGETHER = 4096  # numbers in the rows that are computed together: their sums overlap, and fill half a first cache


def in_lanes(function: Any) -> Any:
    """The PrimFunc with the sums and maxima along memory taken in lanes; products are left to their register tiles."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        lanes = _lanes(sch, block)
        if lanes is None:
            continue
        stated = sch.get(block)
        spatial = len(stated.iter_vars) - len(summed(stated))
        name = stated.name_hint
        lane = sch.split(sch.get_loops(block)[-1], [None, lanes])[1]
        sch.rfactor(lane, spatial)
        if lanes > _QUARTERS:
            lane = sch.split(_loop_of(sch, sch.get_sblock(name)), [None, _QUARTERS])[1]
            sch.rfactor(lane, spatial)
    return sch.mod["main"]


def _lanes(sch: Any, block: Any) -> int | None:
    """How many lanes a block's sum has: None where it is not along memory, or short, or a sum of products."""
    from tvm import tirx

    stated = sch.get(block)
    axes = summed(stated)
    if not axes or not isinstance(stated.body, tirx.BufferStore) or _is_product(stated.body.value):
        return None
    if len(sch.get_loops(block)) != len(stated.iter_vars) or not stated.iter_vars[-1].same_as(axes[-1]):
        return None
    if not any(read.region and read.region[-1].min.same_as(axes[-1].var) for read in stated.reads):
        return None
    extent = int(axes[-1].dom.extent)
    return next((lanes for lanes in _LANES if extent % lanes == 0 and extent > lanes), None)


def _is_product(value: Any) -> bool:
    """A sum of products of two elements of different tensors."""
    from tvm import ir, tirx

    terms = [part for part in (getattr(value, "a", None), getattr(value, "b", None)) if isinstance(part, tirx.Mul)]
    return any(
        isinstance(term.a, ir.TensorLoad)
        and isinstance(term.b, ir.TensorLoad)
        and not term.a.source.same_as(term.b.source)
        for term in terms
    )


def rows_at_once(sch: Any) -> None:
    """Compute all blocks at the rows of the result, and put the lanes of their sums in vectors; nothing without lanes.

    Rows whose sums are not in lanes overlap best when each sum is a loop nest of its own.
    """
    *blocks, result = sch.get_child_blocks(sch.get_sblock("root"))
    if not any(_has_lanes(sch, block) for block in blocks):
        return
    depth = _rows(sch, blocks, result)
    if depth:
        row = _together(sch, result, depth)
        for block in reversed(blocks):
            sch.compute_at(block, row, preserve_unit_loops=True)
    for block in (*blocks, result):
        if summed(sch.get(block)):
            _start_apart(sch, block, depth)


def _loop_of(sch: Any, block: Any) -> Any:
    """The only loop that a block sums over."""
    from tvm import tirx

    loops = sch.get_loops(block)
    stated, realize = sch.get(block), sch.get(loops[-1]).body
    over = next(v for axis, v in zip(stated.iter_vars, realize.iter_values, strict=True) if is_summed(axis))
    used = tirx.analysis.undefined_vars(over)
    return next(loop for loop in loops if sch.get(loop).loop_var in used)


def _together(sch: Any, result: Any, depth: int) -> Any:
    """The loop over groups of rows: as many rows in each as are worth it, and divide them."""
    loops = sch.get_loops(result)
    size = prod(int(sch.get(loop).extent) for loop in loops[depth:])
    rows = int(sch.get(loops[depth - 1]).extent)
    count = max(n for n in range(1, rows + 1) if rows % n == 0 and (n == 1 or n * size <= _TOGETHER))
    return sch.split(loops[depth - 1], [None, count])[0]


def _rows(sch: Any, blocks: list[Any], result: Any) -> int:
    """How many leading axes all blocks have in common with the result; 0 where there is no such loop nest."""
    written = [_written(sch, block) for block in (*blocks, result)]
    if sch.get_consumers(result) or not all(written) or not all(sch.get_consumers(block) for block in blocks):
        return 0
    own = written[-1]
    depth = len(own) - 1
    for extents in written[:-1]:
        same = [a == b for a, b in zip(extents, own, strict=False)]
        depth = min(depth, same.index(False) if False in same else len(same))
    return depth if prod(own[:depth]) > 1 else 0


def _has_lanes(sch: Any, block: Any) -> bool:
    """The block is what `rfactor` made: it sums, and its results have the lanes for their last axis."""
    stated, extents = sch.get(block), _written(sch, block)
    return bool(summed(stated)) and stated.name_hint.endswith("_rf") and extents[-1] in _LANES


def _written(sch: Any, block: Any) -> list[int]:
    """Extents of a block's results in the order that they lie in; nothing where a store has another form."""
    from tvm import tirx

    stated = sch.get(block)
    extents = {axis.var: int(axis.dom.extent) for axis in stated.iter_vars}
    indices = list(getattr(stated.body, "indices", ()))
    if not isinstance(stated.body, tirx.BufferStore) or not all(index in extents for index in indices):
        return []
    return [extents[index] for index in indices]


def _start_apart(sch: Any, block: Any, shared: int) -> None:
    """The loops of a sum innermost and its first value ahead of them, with its lanes, if it has any, in a vector.

    shared: how many outer loops the block has in common with others.
    """
    from tvm import tirx

    stated, loops = sch.get(block), sch.get_loops(block)
    realize = sch.get(loops[-1]).body
    used = {a.var: tirx.analysis.undefined_vars(v) for a, v in zip(stated.iter_vars, realize.iter_values, strict=True)}
    over = [loop for loop in loops if any(sch.get(loop).loop_var in used[axis.var] for axis in summed(stated))]
    last = stated.body.indices[-1]
    along = any(last in tirx.analysis.undefined_vars(read.region[-1].min) for read in stated.reads if read.region)
    lane = [loop for loop in loops if along and sch.get(loop).loop_var in used.get(last, ())]
    lane = [loop for loop in lane if int(sch.get(loop).extent) in _LANES]
    if not lane and not shared:
        return
    rest = [loop for loop in loops[shared:] if loop not in over and loop not in lane]
    sch.reorder(*rest, *over, *lane)
    if lane:
        sch.vectorize(lane[-1])
    start = sch.decompose_reduction(block, over[0])
    if lane:
        sch.vectorize(sch.get_loops(start)[-1])

"""The template of float32 products with too few columns, or rows, for vectors of results: a dot product for each.

Both factors are read along what is summed, so that nothing is packed: a query against the keys of an attention, a
matrix times a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from ....targets.target import Target
from .. import schedule
from ..blocks import extents, loop_with, with_root
from ..llvm_functions import dot
from ..operators.workload import Config

__all__ = ["DotProducts", "beside", "cycles", "pays", "scheduled", "workload"]

_JOIN = 12  # cycles to join the lanes of a sum


@dataclass(frozen=True)
class DotProducts:
    """So many sums of `depth` products, in vectors of `lanes`; nothing is left to choose."""

    results: int
    depth: int
    lanes: int

    def space(self) -> list[Config]:
        """The only config."""
        return [Config(1, 1)]

    def choose(self) -> Config:
        """The only config."""
        return Config(1, 1)


def cycles(target: Target, depth: float) -> float:
    """Of a dot product."""
    return depth / schedule.lanes_of(target) + _JOIN


def pays(target: Target, width: int, depth: int) -> bool:
    """Dot products take fewer cycles for a column than transposing it and products of vectors of columns."""
    return width * cycles(target, depth) < depth / 2 + width * depth / (2 * schedule.lanes_of(target))


def beside(sch: Any, block: Any) -> list[bool]:
    """For each of the two factors that a block multiplies, whether what is summed lies beside each other.

    Empty where the block sums over several axes, or what it sums are no products of two float32 factors.
    """
    stated = sch.get(block)
    if len(extents(sch, block, summed=True)) != 1 or len(stated.reads) != 2:
        return []
    if any(str(read.source.dtype) != "float32" for read in stated.reads):
        return []
    return [_is_beside(read, stated.iter_vars[-1].var) for read in stated.reads]


def _is_beside(read: Any, k: Any) -> bool:
    from tvm import tirx

    found = [i for i, r in enumerate(read.region) if any(k.same_as(v) for v in tirx.analysis.undefined_vars(r.min))]
    if len(found) != 1 or not read.region[found[0]].min.same_as(k):
        return False
    return prod(int(extent) for extent in read.source.shape[found[0] + 1 :]) == 1


def workload(sch: Any, block: Any, target: Target) -> DotProducts:
    """The dot products of a block."""
    (depth,) = extents(sch, block, summed=True)
    return DotProducts(prod(extents(sch, block, summed=False)), depth, schedule.lanes_of(target))


def scheduled(sch: Any, block: Any, p: DotProducts, target: Target) -> Any:
    """The kernel of a schedule with a call for each sum, and what follows in vectors."""
    name = sch.get(block).name_hint
    schedule.finish(sch, target)
    return _with_calls(sch.mod["main"], name, p)


def _with_calls(function: Any, name: str, p: DotProducts) -> Any:
    from tvm import s_tir, tirx

    def called(nest: Any) -> Any:
        loops = []
        while isinstance(nest, tirx.For):
            loops.append(nest)
            nest = nest.body
        if nest.block.name_hint != name:
            return None
        *axes, k = nest.block.iter_vars
        reads, places = zip(*(_row(read, k) for read in nest.block.reads), strict=True)
        value = tirx.call_extern("float32", dot(p.lanes), *places, tirx.const(p.depth, "int32"))
        (write,) = nest.block.writes
        store = tirx.BufferStore(write.source, value, [r.min for r in write.region])
        block = s_tir.SBlock(axes, list(reads), [write], name, store)
        statement = s_tir.SBlockRealize(list(nest.iter_values[:-1]), True, block)
        for loop in reversed(loops[:-1]):
            statement = loop_with(loop, statement)
        return statement

    body = function.body.block.body
    nests = list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]
    made = [called(nest) or nest for nest in nests]
    return with_root(function, body=made[0] if len(made) == 1 else tirx.SeqStmt(made))


def _row(read: Any, k: Any) -> tuple[Any, Any]:
    """All that is read along the summed axis, and where it begins."""
    from tvm import ir, tirx

    start, whole = tirx.const(0, str(k.var.ty.dtype)), ir.Range.from_min_extent(0, k.dom.extent)
    ranges = [whole if r.min.same_as(k.var) else r for r in read.region]
    index = [start if r.min.same_as(k.var) else r.min for r in read.region]
    return tirx.BufferRegion(read.source, ranges), tirx.address_of(tirx.BufferLoad(read.source, index))

"""The template of float convolutions of several groups: vectors of results that are whole, whatever a group has.

Groups whose filters are no whole vectors are put beside each other; each lane reads the activations of its own group.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ....targets.target import Target
from .. import schedule
from ..blocks import extents
from ..intrinsics_grouped import FUSED, GroupedDot
from ..operators.workload import Config
from .bfloat16_template import factor

__all__ = ["FloatGroupedProduct", "filters_of_group", "joined", "packed", "scheduled", "workload"]

Array = npt.NDArray[np.generic]

_VECTORS = 6  # registers of sums for one position
_UNROLLED = 512  # products behind each other: some kilobytes of instructions


@dataclass(frozen=True)
class FloatGroupedProduct:
    """Results in rows of `width` positions by `columns`, `share` of them a group; each the sum of `depth` products.

    channels: of a group; vector: lanes of a register; registers: that may hold sums.
    """

    rows: int
    width: int
    columns: int
    depth: int
    channels: int
    share: int
    vector: int
    registers: int

    @property
    def dot(self) -> GroupedDot:
        """The product of a tap of the window."""
        return GroupedDot(FUSED[self.vector], self.share, self.channels)

    def space(self) -> list[Config]:
        """Every config that computes the workload; all give the same bits."""
        return [Config(*tile) for tile in schedule.tiles(self.width, 1, self.registers // self.dot.vectors)]

    def choose(self) -> Config:
        """The most positions that registers hold: they share the weights."""
        return max(self.space(), key=lambda config: config.positions)


def filters_of_group(weight: Array, data: Any) -> int | None:
    """Filters of a group of a convolution [R, S, I, O] that has several; None for any other product."""
    if (
        weight.ndim != 4
        or {str(weight.dtype), str(data.dtype)} != {"float32"}
        or int(data.shape[-1]) == weight.shape[2]
        or int(data.shape[-1]) % weight.shape[2]
    ):
        return None
    return int(weight.shape[3] // (int(data.shape[-1]) // weight.shape[2]))


def joined(share: int, channels: int, columns: int, vector: int) -> GroupedDot | None:
    """How groups of so many filters lie beside each other in whole vectors; None where they do not, or need not."""
    dot = GroupedDot(FUSED[vector], share, channels)
    return dot if share % vector and columns % dot.lanes == 0 and dot.vectors <= _VECTORS else None


def workload(
    sch: Any, block: Any, position: int, weight: Array, share: int, target: Target
) -> FloatGroupedProduct | None:
    """The products that a block sums, where whole vectors of whole groups take the fewest instructions.

    position: of the weights among what is read; share: filters of a group.
    """
    *outer, width, columns = extents(sch, block, summed=False)
    vector, channels = schedule.lanes_of(target), int(weight.shape[2])
    dot = joined(share, channels, columns, vector)
    if dot is None:
        return None
    index, axes = sch.get(block).reads[1 - position].region, sch.get(block).iter_vars
    # What is in order for a tap of the window is so for the next position's tap before.
    again = weight.shape[1] if factor(index[2].min, axes[2].var) == factor(index[2].min, axes[5].var) == 1 else 1
    narrow = next((lanes for lanes in (8, 4) if share % lanes == 0 and lanes < vector), None)
    if narrow is not None and channels * dot.lanes // narrow <= channels * dot.vectors + dot.permutations / again:
        return None
    depth = prod(extents(sch, block, summed=True))
    registers = schedule.registers(target)
    return FloatGroupedProduct(prod(outer), width, columns, depth, channels, share, vector, registers)


def packed(weight: Array, p: FloatGroupedProduct) -> Array:
    """[R, S, I, O] as [O / lanes, R, S, I, lanes, 1]."""
    r, s, channels, filters = weight.shape
    split = weight.reshape(r, s, channels, filters // p.dot.lanes, p.dot.lanes, 1)
    return np.ascontiguousarray(split.transpose(3, 0, 1, 2, 4, 5))


def scheduled(function: Any, p: FloatGroupedProduct, position: int, target: Target, config: Config) -> Any:
    """Sums of some positions and one vector of groups in registers; position: of the weights among what is read."""
    from tvm.s_tir import Schedule

    sch, lanes, vector = Schedule(function), p.dot.lanes, p.vector
    block = schedule.reduction(sch)
    sch.transform_layout(
        block,
        ("read", position),
        lambda r, s, c, o: [o // lanes, r, s, c, o % lanes, o % 1],
        pad_value=None,
    )
    *outer, w, o = sch.get_loops(schedule.tail(sch, block))
    wo, wi = sch.split(w, [None, config.positions])
    oo, oi = sch.split(o, [None, lanes])
    sch.reorder(*outer, oo, wo, wi, oi)
    sch.unroll(wi)
    sch.vectorize(sch.split(oi, [None, vector])[1])
    sch.compute_at(block, wo, preserve_unit_loops=True)
    aw, ao, r, s, c = sch.get_loops(block)[-5:]
    sch.reorder(r, s, *([c, aw, ao] if p.channels == 1 else [aw, ao, c]))  # where TVM finds the intrinsic's loops
    sch.unroll(aw)
    init = sch.decompose_reduction(block, r)
    zero_position, zero_lane = sch.get_loops(init)[-2:]
    sch.unroll(zero_position)
    sch.vectorize(sch.split(zero_lane, [None, vector])[1])
    if int(sch.get(s).extent) * config.positions * p.dot.vectors * p.channels <= _UNROLLED:
        sch.unroll(s)  # what is in order for a tap is so for the next position's tap before
    sch.tensorize(ao, p.dot.register())
    schedule.finish(sch, target)
    return sch.mod["main"]

"""The template of float32 products whose right factor is read as it lies: of two activations, as in an attention.

Register tiles as for constant weights, of any size: the last tile of a row or of the columns overlaps the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from ....targets.target import Target
from .. import schedule
from ..blocks import extents
from ..operators.workload import Config
from .overlap import overlapped

__all__ = ["FloatMatrixProduct", "Places", "places", "row_axis", "scheduled", "workload"]


@dataclass(frozen=True)
class FloatMatrixProduct:
    """`rows` products of [width, depth] by [depth, columns].

    lanes: columns of a vector; registers: vectors that may hold sums.
    """

    rows: int
    width: int
    columns: int
    depth: int
    lanes: int
    registers: int

    @property
    def vectors(self) -> int:
        """In a row of results, the last of which may overlap the one before."""
        return -(-self.columns // self.lanes)

    def space(self) -> list[Config]:
        """Every config that computes the workload; all give the same bits."""
        whole = max(self.columns // self.lanes, 1)
        return [Config(*tile) for tile in schedule.overlapping_tiles(self.width, whole, self.registers)]

    def choose(self) -> Config:
        """The tile with the fewest cycles for all results."""
        return min(self.space(), key=lambda c: schedule.tile_cycles(self.width, self.vectors, c.positions, c.vectors))


@dataclass(frozen=True)
class Places:
    """Which of the axes of a product's results the rows of tiles lie along; position: of its left factor's read."""

    row: int
    position: int


def places(sch: Any, block: Any) -> Places | None:
    """The rows of a product whose right factor is read as it lies; None where a block sums anything else.

    Columns, the last axis of the results, lie behind each other in the right factor and are no part of the left one.
    """
    stated = sch.get(block)
    axes = [axis.var for axis in stated.iter_vars]
    spatial = len(extents(sch, block, summed=False))
    if len(stated.reads) != 2 or len(axes) != spatial + 1:
        return None
    used = [[_used(r.min, axes) for r in read.region] for read in stated.reads]
    column = spatial - 1
    for position in (0, 1):
        left, right = used[position], used[1 - position]
        beside = right[-1] == {column} and stated.reads[1 - position].region[-1].min.same_as(axes[column])
        if not beside or any(column in axis for axis in (*left, *right[:-1])):
            continue
        row = row_axis(stated, position, spatial)
        if row is not None:
            return Places(row, position)
    return None


def row_axis(stated: Any, position: int, spatial: int) -> int | None:
    """The longest axis of results that is one of the left factor and not of the right one, else one of size 1.

    spatial: how many there are; position: of the left factor among what is read.
    """
    axes = [axis.var for axis in stated.iter_vars]
    left, right = ([_used(r.min, axes) for r in stated.reads[i].region] for i in (position, 1 - position))
    others = {axis for place in right for axis in place} | {spatial}
    found = [next(iter(place)) for place in left if len(place) == 1 and not place & others]
    lengths = [int(axis.dom.extent) for axis in stated.iter_vars]
    single = [axis for axis in range(spatial - 1) if lengths[axis] == 1]
    return max(found or single, key=lambda axis: lengths[axis], default=None)


def _used(index: Any, axes: list[Any]) -> set[int]:
    """Which axes an index depends on."""
    from tvm import tirx

    variables = tirx.analysis.undefined_vars(index)
    return {i for i, axis in enumerate(axes) if any(axis.same_as(variable) for variable in variables)}


def workload(sch: Any, block: Any, found: Places, target: Target) -> FloatMatrixProduct | None:
    """The products that a block sums; None where there are fewer columns than the narrowest vector has lanes."""
    sizes = extents(sch, block, summed=False)
    (depth,) = extents(sch, block, summed=True)
    columns, width = sizes[-1], sizes[found.row]
    lanes = next((lane for lane in (schedule.lanes_of(target), 8, 4) if lane <= columns), None)
    if lanes is None:
        return None
    return FloatMatrixProduct(prod(sizes) // width // columns, width, columns, depth, lanes, schedule.registers(target))


def scheduled(function: Any, p: FloatMatrixProduct, row: int, target: Target, config: Config) -> Any:
    """The fused kernel with its sums in register tiles."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    block = schedule.reduction(sch)
    tile = (config.positions, config.vectors)
    blocks = schedule.register_tile(sch, block, schedule.tail(sch, block), p.lanes, tile, row=row)
    counts = [sch.get(loop).loop_var for loop in blocks]
    schedule.finish(sch, target)
    sizes = (config.positions, p.lanes * config.vectors)
    return overlapped(sch.mod["main"], list(zip(counts, sizes, (p.width, p.columns), strict=True)))

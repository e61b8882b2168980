"""Templates of float kernels: convolutions and dense layers with constant weights, products of two activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ....targets.target import Target
from .. import schedule
from ..blocks import extents
from ..operators.depthwise_tiles import DepthwiseConfig, DepthwiseWorkload, lanes_of, schedule_rows
from ..operators.workload import Config
from . import bfloat16_template, dot_products, grouped, matrix_products
from .bfloat16_product import Bfloat16MatrixPairs, Bfloat16Pairs, Bfloat16Product, configuration, packed
from .bfloat16_template import factor
from .dot_products import DotProducts
from .matrix_products import FloatMatrixProduct, Places
from .overlap import overlapped

__all__ = ["FloatProduct", "Template", "template"]

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class FloatProduct(FloatMatrixProduct):
    """The same with constant weights, packed by vectors: whole ones, and none is part of two tiles."""

    def space(self) -> list[Config]:
        """Every config that computes the workload; all give the same bits. The last tile of a row may overlap."""
        return [config for config in super().space() if self.vectors % config.vectors == 0]


@dataclass(frozen=True)
class Template:
    """A kernel that has a template: its workload, the PrimFunc under a config, constants that change, by argument.

    tiles: what sets up tile registers, as one more argument ahead of the results; None where there are none.
    """

    workload: Any
    scheduled: Callable[[Any], Any]
    packed: Mapping[int, Array]
    tiles: Array | None = None


def template(function: Any, constants: Sequence[Array | None], target: Target) -> Template | None:
    """The template of a fused PrimFunc of float operators; `constants`: its arguments as far as they are known."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    block = schedule.reduction(sch)
    if block is None or not schedule.is_product(sch, block):
        return None
    weight = _weight(sch, block, function, constants)
    lanes = schedule.product_lanes(sch, block, target)
    one_result = len(function.params) == len(constants) + 1
    computed = bfloat16_template.activations(sch, block, target) if one_result else None
    if computed is not None:
        p, place = computed
        return Template(p, partial(bfloat16_template.scheduled, function, p, place, None, target), {}, _tiles(p))
    if weight is None or lanes is None:
        return _as_it_lies(sch, block, function, target, weight)
    position, argument, array = weight
    data = sch.get(block).reads[1 - position].source
    if array.ndim == 4 and array.shape[2] == 1 and int(data.shape[-1]) == array.shape[3]:
        return _depthwise(sch, block, function, target, 1 - position)
    tiled = bfloat16_template.workload(sch, block, 1 - position, target)
    if tiled is not None and one_result:
        own = packed(array, tiled)
        place = Places(len(extents(sch, block, summed=False)) - 2, 1 - position)
        made = partial(bfloat16_template.scheduled, function, tiled, place, own.shape, target)
        return Template(tiled, made, {argument: own}, _tiles(tiled))
    share = grouped.filters_of_group(array, data)
    if share is not None:
        shared = grouped.workload(sch, block, position, array, share, target)
        if shared is not None:
            own = grouped.packed(array, shared)
            return Template(shared, partial(grouped.scheduled, function, shared, position, target), {argument: own})
        lanes = next((n for n in (lanes, 8, 4) if n <= lanes and share % n == 0), None)
    if lanes is None:
        return None
    if array.ndim == 2 and lanes < schedule.lanes_of(target) <= array.shape[-1]:
        # the last vector overlaps, instead of all being narrower
        overlapping = _as_it_lies(sch, block, function, target, weight)
        if overlapping is not None:
            return overlapping
    return _product(sch, block, function, target, weight, lanes)


def _as_it_lies(
    sch: Any, block: Any, function: Any, target: Target, weight: tuple[int, int, Array] | None
) -> Template | None:
    """Products whose right factor is computed, or has fewer columns than fill vectors."""
    found = matrix_products.places(sch, block)
    workload = None if found is None else matrix_products.workload(sch, block, found, target)
    if found is not None and workload is not None:
        return Template(workload, partial(matrix_products.scheduled, function, workload, found.row, target), {})
    along = dot_products.beside(sch, block)
    turned = weight if along and weight is not None and weight[2].ndim == 2 and not along[weight[0]] else None
    if not along or not all(own or (turned is not None and turned[0] == i) for i, own in enumerate(along)):
        return None
    dots = dot_products.workload(sch, block, target)
    made = partial(_in_dot_products, function, dots, None if turned is None else turned[0], target)
    return Template(dots, made, {} if turned is None else {turned[1]: np.ascontiguousarray(turned[2].T)})


def _in_dot_products(function: Any, p: DotProducts, turned: int | None, target: Target, _: Config) -> Any:
    """turned: which factor is constant and stored with its columns behind each other."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    block = schedule.reduction(sch)
    if turned is not None:
        sch.transform_layout(block, ("read", turned), lambda k, n: [n, k])
    return dot_products.scheduled(sch, block, p, target)


def _tiles(p: Bfloat16Product) -> Array | None:
    """What sets up tile registers; vectors need nothing."""
    return None if isinstance(p, (Bfloat16Pairs, Bfloat16MatrixPairs)) else configuration(p)


def _weight(sch: Any, block: Any, function: Any, constants: Sequence[Array | None]) -> tuple[int, int, Array] | None:
    """Which of the two factors is constant with results along its last axis: as a read, and as an argument; itself."""
    reads = sch.get(block).reads
    columns = extents(sch, block, summed=False)[-1]
    if len(reads) != 2:
        return None
    for position, read in enumerate(reads):
        for argument, (buffer, array) in enumerate(zip(function.params, constants, strict=False)):
            if array is not None and read.source.same_as(buffer) and array.ndim > 1 and array.shape[-1] == columns:
                return position, argument, array
    return None


def _product(
    sch: Any, block: Any, function: Any, target: Target, weight: tuple[int, int, Array], lanes: int
) -> Template:
    """Weights [..., columns] are packed to [columns / lanes, ..., lanes]: a tile reads them from front to back."""
    position, argument, array = weight
    *outer, width, columns = extents(sch, block, summed=False)
    depth = prod(extents(sch, block, summed=True))
    data = prod(int(d) for d in sch.get(block).reads[1 - position].source.shape)
    workload = FloatProduct(prod(outer), width, columns, depth, lanes, schedule.registers(target))

    def scheduled(config: Config) -> Any:
        from tvm.s_tir import Schedule

        own = Schedule(function)
        summing = schedule.reduction(own)
        own.transform_layout(
            summing, ("read", position), lambda *i: [i[-1] // lanes, *i[:-1], i[-1] % lanes], pad_value=None
        )
        tile = (config.positions, config.vectors)
        across, _ = schedule.register_tile(
            own, summing, schedule.tail(own, summing), lanes, tile, columns_first=array.size > data
        )
        count = own.get(across).loop_var
        schedule.finish(own, target)
        return overlapped(own.mod["main"], [(count, config.positions, width)])

    split = array.reshape(*array.shape[:-1], columns // lanes, lanes)
    return Template(workload, scheduled, {argument: np.ascontiguousarray(np.moveaxis(split, -2, 0))})


def _depthwise(sch: Any, block: Any, function: Any, target: Target, position: int) -> Template | None:
    """The schedule of integer depthwise convolutions; padding is made as it is read."""
    stated = sch.get(block)
    batch, *out, filters = extents(sch, block, summed=False)
    window = extents(sch, block, summed=True)[:2]
    lanes = lanes_of(filters, schedule.lanes_of(target))
    index = stated.reads[position].region
    axes = stated.iter_vars
    strides = [factor(index[1 + d].min, axes[1 + d].var) for d in (0, 1)]
    dilations = [factor(index[1 + d].min, axes[4 + d].var) for d in (0, 1)]
    width = int(stated.reads[position].source.shape[2])
    if lanes is None or None in (*strides, *dilations):
        return None
    sizes = [(int(pair[0]), int(pair[1])) for pair in (out, window, strides, dilations)]  # type: ignore[arg-type]
    workload = DepthwiseWorkload(
        batch, filters, sizes[0], width, sizes[1], sizes[2], sizes[3], "float32", lanes, target.threads
    )

    def scheduled(config: DepthwiseConfig) -> Any:
        from tvm.s_tir import Schedule

        own = Schedule(function)
        acc = schedule.reduction(own)
        padding = own.get_producers(acc)
        schedule_rows(own, acc, schedule.tail(own, acc), padding[0] if padding else None, config, lanes)
        return own.mod["main"]

    return Template(workload, scheduled, {})

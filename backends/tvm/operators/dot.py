"""Products by dot-product instructions, or by plain vectors: int32 sums of a tile of results kept in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..intrinsics_arm64 import DEEP_SDOT, SDOT
from .epilogue import begun
from .grouped_workload import GroupedProduct
from .kernel import Kernel, Templated
from .located import Located
from .packing import inner
from .workload import Config, Operands, Workload, config

__all__ = ["deep", "dot_product"]

Finish = Callable[..., Any]  # the result of a sum, its filter and its index


def deep(p: Workload) -> Workload:
    """Steps of as many channels as one load of activations serves, where they divide."""
    depth = next((depth for depth in DEEP_SDOT if p.channels % depth == 0), None)
    return replace(p, depth=depth, intrinsic=DEEP_SDOT[depth]) if p.intrinsic == SDOT and depth else p


def dot_product(
    kernel: Kernel, p: Workload, x: Operands, finish: Finish, out: Located, order: Sequence[int] = (0, 1, 2, 3)
) -> Located:
    """The results of a workload; order: which of image, row, column and filter each stored axis is."""
    te = kernel.te
    r, s = (te.reduce_axis((0, k), name=name) for k, name in zip(p.kernel, "rs", strict=True))
    co = te.reduce_axis((0, p.padded_channels // p.depth), name="co")
    ci = te.reduce_axis((0, p.depth), name="ci")

    def term(n: Any, h: Any, w: Any, o: Any) -> Any:
        row, column = h * p.strides[0] + r * p.dilations[0], w * p.strides[1] + s * p.dilations[1]
        value = x.data(*x.at(n, row, column, p.channel(o, co * p.depth + ci))).astype("int32")
        factor = x.packed(*x.weight(n, h, o // p.lanes, r, s, co, *inner(p, o, ci))).astype("int32")
        return te.sum(value * factor, axis=[r, s, co, ci])

    acc = te.compute((p.batch, *p.out, p.padded_filters), term, name="acc")

    def element(*index: Any) -> Any:
        n, h, w, o = p.result(*(index[order.index(axis)] for axis in range(len(order))))
        return finish(x.moved(acc(n, h, w, o), n, h, w), x.filter(n, o), n, h, w, o)

    result = te.compute(tuple(p.sizes[axis] for axis in order), element, name="out")
    made = Templated(result, out, p, config(kernel, p), lambda f, tile: _schedule(f, p, tile, order), begun)
    return kernel.tiled(made)


def _finished(p: Workload, tile: Config) -> int:
    """Results that are finished together: of arm64's vectors of four sums as many as make a vector of bytes."""
    sums = p.lanes * tile.vectors
    several = (isinstance(p, GroupedProduct) and p.share > 0) or p.intrinsic in (SDOT, *DEEP_SDOT.values())
    return next(n for n in (16, 8, p.lanes) if sums % n == 0) if several else p.lanes


def _schedule(function: Any, p: Workload, tile: Config, order: Sequence[int]) -> Any:
    """Register tiles; each is finished at once where the filters fill whole vectors, else all at the end."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    if p.filters == p.padded_filters:
        stored = sch.get_loops(out)
        n, h, w, o, *blocks = (stored[order.index(axis)] for axis in range(len(order)))
        wo, wi = sch.split(w, [None, tile.positions])
        oo, oi = sch.split(o, [None, p.lanes * tile.vectors])
        sch.reorder(n, *blocks, h, oo, wo, wi, oi)
        sch.vectorize(sch.split(oi, [None, _finished(p, tile)])[1])
        sch.unroll(wi)
        sch.compute_at(acc, wo, preserve_unit_loops=True)
    else:
        n, h, w, o, *reduction = sch.get_loops(acc)
        wo, wi = sch.split(w, [None, tile.positions])
        oo, oi = sch.split(o, [None, p.lanes * tile.vectors])
        sch.reorder(n, h, oo, wo, wi, oi, *reduction)
    aw, ao, r, s, co, ci = sch.get_loops(acc)[-6:]
    vector, lane = sch.split(ao, [None, p.lanes])
    # of a deep step the weights of one vector stay in registers, else those of all
    order = (vector, aw) if p.intrinsic in DEEP_SDOT.values() else (aw, vector)
    sch.reorder(r, s, co, *order, lane, ci)
    sch.unroll(aw)
    sch.unroll(vector)
    if p.intrinsic is None:
        sch.vectorize(lane)
    init = sch.decompose_reduction(acc, r)
    *_, zero_position, zero_vector, zero_lane = sch.get_loops(init)
    sch.unroll(zero_position)
    sch.unroll(zero_vector)
    sch.vectorize(zero_lane)
    if p.intrinsic is not None:
        sch.tensorize(lane, p.intrinsic)
    return sch.mod["main"]

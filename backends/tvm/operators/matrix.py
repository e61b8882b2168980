"""Convolutions by matrix products: [2 positions, 8 channels] · [2 filters, 8 channels]ᵀ an instruction (SMMLA).

Sums of two positions and four filters lie in two vectors, filter pair by filter pair, and are put into rows at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..intrinsics_arm64 import MATRIX_ROWS
from .kernel import Kernel, Templated
from .located import Located
from .workload import Config, Operands, Workload, config

__all__ = ["MATRIX_DEPTH", "matrix_product", "pays"]

Finish = Callable[..., Any]  # the result of a sum, its filter and its index

MATRIX_DEPTH = 8


def pays(p: Workload) -> bool:
    """Whether positions pair up beside each other, and fewer instructions do it than dot products of depth 4."""
    fits = p.out[1] % 2 == 0 and p.strides[1] == 1 and p.dilations[1] == 1 and p.filters % 4 == 0
    return fits and -(-p.channels // MATRIX_DEPTH) < -(-p.channels // p.depth)


def matrix_product(
    kernel: Kernel, p: Workload, x: Operands, finish: Finish, out: Located, order: Sequence[int] = (0, 1, 2, 3)
) -> Located:
    """The results of a workload; order: which of image, row, column and filter each stored axis is."""
    te = kernel.te
    r, s = (te.reduce_axis((0, k), name=name) for k, name in zip(p.kernel, "rs", strict=True))
    co = te.reduce_axis((0, p.padded_channels // MATRIX_DEPTH), name="co")
    ci = te.reduce_axis((0, MATRIX_DEPTH), name="ci")
    height, width = p.out
    tiles = (p.batch, height, width // 2, p.filters // 4, 2, 2, 2)

    def term(n: Any, h: Any, w: Any, o: Any, pair: Any, i: Any, j: Any) -> Any:
        row, column = h * p.strides[0] + r * p.dilations[0], w * 2 + i + s
        value = x.data(*x.at(n, row, column, co * MATRIX_DEPTH + ci)).astype("int32")
        factor = x.packed(*x.weight(n, h, o, r, s, co, pair, j, ci)).astype("int32")
        return te.sum(value * factor, axis=[r, s, co, ci])

    acc = te.compute(tiles, term, name="acc")
    rows = te.compute(tiles, lambda n, h, w, o, i, pair, j: acc(n, h, w, o, pair, i, j), name="rows")

    def element(*index: Any) -> Any:
        n, h, w, o = p.result(*(index[order.index(axis)] for axis in range(len(order))))
        sums = rows(n, h, w // 2, o // 4, w % 2, o % 4 // 2, o % 2)
        return finish(x.moved(sums + x.start(n, h, o), n, h, w), x.filter(n, o), n, h, w, o)

    result = te.compute(tuple(p.sizes[axis] for axis in order), element, name="out")
    assert p.intrinsic is not None
    made = partial(_schedule, order=order, intrinsic=p.intrinsic)
    return kernel.tiled(Templated(result, out, p, config(kernel, p), made))


def _schedule(function: Any, tile: Config, *, order: Sequence[int], intrinsic: str) -> Any:
    """Register tiles of pairs of positions by groups of four filters, each finished at once."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    acc, rows, out = (sch.get_sblock(name) for name in ("acc", "rows", "out"))
    stored = sch.get_loops(out)
    n, h, w, o, *blocks = (stored[order.index(axis)] for axis in range(len(order)))
    wo, wi = sch.split(w, [None, 2 * tile.positions])
    oo, oi = sch.split(o, [None, 4 * tile.vectors])
    sch.reorder(n, *blocks, h, oo, wo, wi, oi)
    sch.unroll(wi)
    group, lane = sch.split(oi, [None, 4])
    sch.unroll(group)
    sch.vectorize(lane)
    sch.compute_at(rows, wo, preserve_unit_loops=True)
    pair, four, i, _, _ = sch.get_loops(rows)[-5:]
    sch.unroll(pair)
    sch.unroll(four)
    sch.compute_at(acc, wo, preserve_unit_loops=True)
    aw, ao, half, i, j, r, s, co, ci = sch.get_loops(acc)[-9:]
    sch.reorder(r, s, co, aw, ao, half, i, j, ci)
    for loop in (aw, ao, half):
        sch.unroll(loop)
    init = sch.decompose_reduction(acc, r)
    *_, zero_pair, zero_group, zero_half, zero_i, zero_j = sch.get_loops(init)
    for loop in (zero_pair, zero_group, zero_half):
        sch.unroll(loop)
    sch.vectorize(sch.fuse(zero_i, zero_j))
    sch.tensorize(i, intrinsic)
    sch.tensorize(sch.get_loops(rows)[-3], MATRIX_ROWS)
    return sch.mod["main"]

"""Convolutions by matrix products: [2 positions, 8 channels] · [2 filters, 8 channels]ᵀ an instruction (SMMLA).

Sums of two positions and four filters lie in two vectors, filter pair by filter pair, and are put into rows at the end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..intrinsics_arm64 import MATRIX_ROWS
from .epilogue import bias_offset, finisher
from .kernel import Kernel, Located
from .workload import Config, Workload, arguments, config

__all__ = ["matrix_product", "pays"]

Array = npt.NDArray[np.generic]

_DEPTH = 8


def pays(p: Workload) -> bool:
    """Whether positions pair up beside each other, and fewer instructions do it than dot products of depth 4."""
    fits = p.out[1] % 2 == 0 and p.strides[1] == 1 and p.dilations[1] == 1 and p.filters % 4 == 0
    return fits and -(-p.channels // _DEPTH) < -(-p.channels // p.depth)


def matrix_product(kernel: Kernel, dot: Workload, weight: Array, out: Located, intrinsic: str) -> Located:
    """The convolution that `dot` describes with dot products, with matrix products; see `conv`."""
    te, p = kernel.te, replace(dot, depth=_DEPTH, intrinsic=intrinsic)
    data, bias, factors = arguments(kernel, p, weight, bias_offset(kernel, weight))
    packed = kernel.array(_pack(weight, p), "w")
    finish = finisher(kernel, weight, factors)
    r, s = (te.reduce_axis((0, k), name=name) for k, name in zip(p.kernel, "rs", strict=True))
    co = te.reduce_axis((0, p.padded_channels // _DEPTH), name="co")
    ci = te.reduce_axis((0, _DEPTH), name="ci")
    height, width = p.out
    tiles = (p.batch, height, width // 2, p.filters // 4, 2, 2, 2)

    def term(n: Any, h: Any, w: Any, o: Any, pair: Any, i: Any, j: Any) -> Any:
        y, x = h * p.strides[0] + r * p.dilations[0], w * 2 + i + s
        value = data(n, y, x, co * _DEPTH + ci).astype("int32")
        return te.sum(value * packed[o, r, s, co, pair, j, ci].astype("int32"), axis=[r, s, co, ci])

    acc = te.compute(tiles, term, name="acc")
    rows = te.compute(tiles, lambda n, h, w, o, i, pair, j: acc(n, h, w, o, pair, i, j), name="rows")

    def element(n: Any, h: Any, w: Any, o: Any) -> Any:
        sums = rows(n, h, w // 2, o // 4, w % 2, o % 4 // 2, o % 2)
        return finish(sums + bias[o], o)

    result = te.compute((p.batch, height, width, p.filters), element, name="out")
    return kernel.tiled(result, out, p, config(kernel, p), lambda function, tile: _schedule(function, tile, intrinsic))


def _pack(weight: Array, p: Workload) -> Array:
    """[O, I, R, S] to [O/4, R, S, I/8, 2, 2, 8], zeros in the padding."""
    o, i, r, s = weight.shape
    full = np.zeros((o, p.padded_channels, r, s), np.int8)
    full[:, :i] = weight
    split = full.reshape(o // 4, 2, 2, p.padded_channels // _DEPTH, _DEPTH, r, s)
    return np.ascontiguousarray(split.transpose(0, 5, 6, 3, 1, 2, 4))


def _schedule(function: Any, tile: Config, intrinsic: str) -> Any:
    """Register tiles of pairs of positions by groups of four filters, each finished at once."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    acc, rows, out = (sch.get_sblock(name) for name in ("acc", "rows", "out"))
    n, h, w, o = sch.get_loops(out)
    wo, wi = sch.split(w, [None, 2 * tile.positions])
    oo, oi = sch.split(o, [None, 4 * tile.vectors])
    sch.reorder(n, h, oo, wo, wi, oi)
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

"""Convolutions and dense layers as products of matrices: patches [positions, depth] by weights [filters, depth].

Fragments of 16 × 16 lie in one piece, in global and in shared memory. Positions are rows of NHWC results, so the sums
of a tile are requantized and written in place. Σ (x − z_x) w is computed as Σ x·w with −z_x·Σw in the bias.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ...targets.cuda import architecture
from ..tvm.operators.kernel import Kernel, Templated
from ..tvm.operators.located import Located
from ..tvm.operators.workload import Workload, folded_bias
from .intrinsics import DP4A, FILL, LOAD_A, LOAD_B, MULTIPLY, SIDE, STORE
from .kernel import CudaKernel
from .tiles import Tile, choose, positions

__all__ = ["product"]

Array = npt.NDArray[np.generic]

_WARP = 32
_VECTOR = 16  # bytes of the widest load
_TENSOR_CORE_ROWS = 8  # fewer positions leave more than half of every fragment empty


def product(kernel: Kernel, dot: Workload, weight: Array, out: Located) -> Located:
    """The convolution by tensor cores, or by dp4a where too few positions would fill a fragment."""
    assert isinstance(kernel, CudaKernel)
    if positions(dot) >= _TENSOR_CORE_ROWS:
        p = replace(
            dot, lanes=SIDE, depth=4 if _shift(kernel) else _step(dot.channels), intrinsic=MULTIPLY, dtype="int8"
        )
        return _tensor_core(kernel, p, weight, out)
    return _dot_product(kernel, replace(dot, lanes=1, depth=4, intrinsic=DP4A, dtype="int8"), weight, out)


def _step(channels: int) -> int:
    """Channels that are read at once: as many as one load takes and divide them, padded to 4 where none do."""
    return next((step for step in (16, 8, 4) if channels % step == 0), 4)


def _pack(weight: Array, p: Workload, filters: int, depth: int) -> Array:
    """[O, I, R, S] to [filters, depth]: channels innermost, padded to the step, zeros in the padding."""
    o, i, r, s = weight.shape
    rows = np.zeros((filters, r, s, p.padded_channels), np.int8)
    rows[:o, :, :, :i] = weight.transpose(0, 2, 3, 1)
    packed = np.zeros((filters, depth), np.int8)
    packed[:, : r * s * p.padded_channels] = rows.reshape(filters, -1)
    return packed


def _shift(kernel: Kernel) -> int:
    """What makes a signed byte of the operand: the instructions take no others with signed weights."""
    return -128 if kernel.operands[0].dtype == "uint8" else 0


def _patch(kernel: Kernel, p: Workload) -> Any:
    """The element of the operand that position m multiplies at depth k; its zero point beside the borders."""
    tirx = kernel.tirx
    data, shift = kernel.operand(0, (p.batch, *p.size, p.channels)).data, _shift(kernel)
    border = kernel.array(np.full(_VECTOR, kernel.zero_point() + shift, np.int8), "border")
    (rows, columns), (height, width), (top, left, *_) = p.size, p.out, p.pads
    taps, count = prod(p.kernel), positions(p)

    def element(m: Any, outer: Any, inner: Any, chunk: int) -> Any:
        """k = outer · chunk + inner; where a chunk is part of one tap, a whole one is read at once."""
        if p.padded_channels % chunk == 0:
            pieces = p.padded_channels // chunk
            tap, c = outer // pieces, outer % pieces * chunk + inner
        else:
            tap, c = (outer * chunk + inner) // p.padded_channels, (outer * chunk + inner) % p.padded_channels
        y = m // width % height * p.strides[0] + tap // p.kernel[1] * p.dilations[0] - top
        x = m % width * p.strides[1] + tap % p.kernel[1] * p.dilations[1] - left
        inside = [m < count, tap < taps]
        if any(p.pads):
            inside += [y >= 0, y < rows, x >= 0, x < columns]
        if p.channels != p.padded_channels:
            inside.append(c < p.channels)
        value = data[m // (height * width), y, x, c]
        return tirx.if_then_else(
            tirx.all(*inside),
            (value.astype("int32") + shift).astype(p.dtype) if shift else value,
            border[inner % _VECTOR],
        )

    return element


def _tensor_core(kernel: CudaKernel, p: Workload, weight: Array, out: Located) -> Located:
    """Blocks are whole: what a tile has beyond the result is computed from zeros and not written."""
    te = kernel.te
    tile: Tile = kernel.program.configs.setdefault(p, choose(p, architecture(kernel.target).processors))
    depth = prod(p.kernel) * p.padded_channels
    rows, columns, steps = (
        -(-size // (SIDE * t)) * t
        for size, t in ((positions(p), tile.rows), (p.filters, tile.columns), (depth, tile.depth))
    )
    patch = _patch(kernel, p)
    packed = _pack(weight, p, columns * SIDE, steps * SIDE).reshape(columns, SIDE, steps, SIDE).transpose(0, 2, 1, 3)
    weights = kernel.array(np.ascontiguousarray(packed), "w")
    finish = _epilogue(kernel, p, weight)
    ko, ki = te.reduce_axis((0, steps), name="ko"), te.reduce_axis((0, SIDE), name="ki")
    patches = te.compute(
        (rows, steps, SIDE, SIDE), lambda i, k, mi, c: patch(i * SIDE + mi, k, c, SIDE), name="patches"
    )

    def term(i: Any, j: Any, mi: Any, oi: Any) -> Any:
        return te.sum(patches[i, ko, mi, ki].astype("int32") * weights[j, ko, oi, ki].astype("int32"), axis=[ko, ki])

    acc = te.compute((rows, columns, SIDE, SIDE), term, name="acc")
    result = te.compute(
        (positions(p), p.filters),
        lambda m, o: finish(acc[m // SIDE, o // SIDE, m % SIDE, o % SIDE], o),
        name="out",
    )
    made = Templated(result, out, p, tile, lambda function, other: _schedule_tensor_core(function, p, other))
    return kernel.blocked(made)


def _schedule_tensor_core(function: Any, p: Workload, tile: Tile) -> Any:
    """A warp's fragments stay in its registers; operands are staged in shared memory, sums leave through it."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    acc, out, patches = (sch.get_sblock(name) for name in ("acc", "out", "patches"))
    i, j, mi, oi, k, ki = sch.get_loops(acc)
    i0, i1, i2 = sch.split(i, [None, tile.warps[0], tile.rows // tile.warps[0]])
    j0, j1, j2 = sch.split(j, [None, tile.warps[1], tile.columns // tile.warps[1]])
    k0, k1 = sch.split(k, [None, tile.depth])
    sch.reorder(i0, j0, i1, j1, k0, k1, i2, j2, mi, oi, ki)
    warp = sch.fuse(i1, j1)
    for loop, axis in ((i0, "blockIdx.x"), (j0, "blockIdx.y"), (warp, "threadIdx.y")):
        sch.bind(loop, axis)
    sch.set_scope(patches, 0, "shared")
    weights = sch.cache_read(acc, 1, "shared")
    for block, vector in ((patches, p.depth), (weights, SIDE)):
        sch.compute_at(block, k0, preserve_unit_loops=True)
        _stage(sch, block, vector, prod(tile.warps))
    left, right = sch.cache_read(acc, 0, "wmma.matrix_a"), sch.cache_read(acc, 1, "wmma.matrix_b")
    for block in (left, right):
        sch.compute_at(block, k1, preserve_unit_loops=True)
    store = sch.cache_write(acc, 0, "wmma.accumulator")
    sch.set_scope(store, 0, "shared")
    sch.reverse_compute_at(store, warp, preserve_unit_loops=True)
    sch.reverse_compute_at(out, j0, preserve_unit_loops=True)
    _, thread_y, thread_x = sch.split(sch.fuse(*sch.get_loops(out)[-2:]), [None, prod(tile.warps), _WARP])
    sch.bind(thread_y, "threadIdx.y")
    sch.bind(thread_x, "threadIdx.x")
    init = sch.decompose_reduction(acc, k0)
    for block, intrinsic, depth in ((init, FILL, 2), (left, LOAD_A, 2), (right, LOAD_B, 2), (store, STORE, 2)):
        *_, a, b = sch.get_loops(block)[:-depth]
        sch.unroll(a)
        sch.unroll(b)
        sch.tensorize(sch.get_loops(block)[-depth], intrinsic)
    sch.unroll(i2)
    sch.unroll(j2)
    sch.tensorize(mi, MULTIPLY)
    return sch.mod["main"]


def _stage(sch: Any, block: Any, vector: int, warps: int) -> None:
    """Fragments to shared memory by all threads of the block, one vector each at a time."""
    *_, a, b, row, element = sch.get_loops(block)
    piece, lane = sch.split(element, [None, vector])
    _, thread_y, thread_x = sch.split(sch.fuse(a, b, row, piece), [None, warps, _WARP])
    sch.bind(thread_y, "threadIdx.y")
    sch.bind(thread_x, "threadIdx.x")
    sch.vectorize(lane)


def _epilogue(kernel: Kernel, p: Workload, weight: Array) -> Any:
    """A sum of filter o as the result has it."""
    factors_, bias_ = kernel.op.multiplier, kernel.op.bias
    assert factors_ is not None and bias_ is not None
    bias = kernel.array(folded_bias(kernel, weight, kernel.zero_point() + _shift(kernel)), "bias")
    factors, clip = kernel.array(factors_, "multiplier"), kernel.levels()
    return lambda total, o: clip((total + bias[o]).astype("float32") * factors[o])


def _dot_product(kernel: CudaKernel, p: Workload, weight: Array, out: Located) -> Located:
    """One thread a result, four products at a time; weights lie filter beside filter, as the threads do."""
    te = kernel.te
    steps, filters = prod(p.kernel) * p.padded_channels // p.depth, -(-p.filters // _WARP) * _WARP
    patch = _patch(kernel, p)
    packed = _pack(weight, p, filters, steps * p.depth).reshape(filters, steps, p.depth).transpose(1, 0, 2)
    weights, finish = kernel.array(np.ascontiguousarray(packed), "w"), _epilogue(kernel, p, weight)
    ko, ki = te.reduce_axis((0, steps), name="ko"), te.reduce_axis((0, p.depth), name="ki")
    patches = te.compute((positions(p), steps, p.depth), lambda m, k, c: patch(m, k, c, p.depth), name="patches")

    def term(m: Any, o: Any) -> Any:
        return te.sum(patches[m, ko, ki].astype("int32") * weights[ko, o, ki].astype("int32"), axis=[ko, ki])

    acc = te.compute((positions(p), filters), term, name="acc")
    result = te.compute((positions(p), p.filters), lambda m, o: finish(acc[m, o], o), name="out")
    return kernel.blocked(Templated(result, out, p, None, lambda function, _: _schedule_dot_product(function)))


def _schedule_dot_product(function: Any) -> Any:
    """Warps of sums beside each other, filled up to whole ones."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    acc, out, patches = (sch.get_sblock(name) for name in ("acc", "out", "patches"))
    m, o, k, ki = sch.get_loops(acc)
    block, thread = sch.split(sch.fuse(m, o), [None, _WARP])
    sch.bind(block, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    sch.set_scope(acc, 0, "local")
    sch.set_scope(patches, 0, "local")
    sch.compute_at(patches, k, preserve_unit_loops=True)
    sch.vectorize(sch.get_loops(patches)[-1])
    sch.reverse_compute_at(out, thread, preserve_unit_loops=True)
    sch.decompose_reduction(acc, k)
    sch.tensorize(ki, DP4A)
    return sch.mod["main"]

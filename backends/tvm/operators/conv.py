"""Convolutions and dense layers: packed weights, dot-product instructions, int32 sums kept in registers.

Σ (x − z_x)(w − z_w) is computed as Σ x·w with −z_x·Σw folded into the bias; padding holds z_x, so it adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ..intrinsics import DOT_PRODUCT, MATRIX_PRODUCT
from ..intrinsics_arm64 import DEEP_SDOT, SDOT, SMLAL
from ..schedule import registers
from .depthwise import depthwise
from .direct import any_conv, any_dense, spatial_size
from .epilogue import begun, bias_offset, finisher
from .kernel import Kernel, Located, channels_last, row_major
from .matrix import matrix_product, pays
from .tile import pays as tiles_pay
from .tile import tile_product
from .workload import Config, Workload, arguments, config

__all__ = ["conv", "dense"]

Array = npt.NDArray[np.generic]
Template = Callable[[Kernel, Workload, Array, Located], Located]  # a product of a shape, its weight [O, I, R, S]


def conv(kernel: Kernel, template: Template | None = None) -> Located:
    """acc = Σ (x − z_x)(w − z_w) + bias; y = clip(rint(float32(acc) · m) + z_y, low, high), or float32(acc) · m."""
    op = kernel.op
    assert op.weight is not None and op.weight_zero_point is not None
    attributes, weight = op.attributes, op.weight
    group = int(attributes["group"])
    x = kernel.operands[0]
    if weight.ndim == 3:
        return _in_one_dimension(kernel, template)
    if weight.ndim != 4 or op.weight_zero_point.any() or weight.dtype != np.int8 or x.dtype not in ("int8", "uint8"):
        return any_conv(kernel)
    if group > 1:
        return depthwise(kernel) if group == x.shape[1] and weight.shape[1] == 1 else any_conv(kernel)
    kernel.relay(0, channels_last(4))
    n, c, h, w = x.shape
    product = _workload(
        kernel,
        n,
        c,
        (h, w),
        weight.shape[0],
        weight.shape[2:],
        attributes["strides"],
        attributes["dilations"],
        attributes["pads"],
    )
    if product.kernel == (1, 1) and product.strides == (1, 1) and not any(product.pads):
        product = replace(product, batch=1, size=(1, n * h * w))  # one long row: more tiles divide it
    out = _located(kernel, (n, weight.shape[0], *spatial_size(kernel)))
    return (template or _template)(kernel, product, weight, out)


def _in_one_dimension(kernel: Kernel, template: Template | None) -> Located:
    """As in two dimensions, the first of which has size 1."""
    op, x = kernel.op, kernel.operands[0]
    assert op.weight is not None
    begin, end = op.attributes["pads"]
    wide = {name: (1, *op.attributes[name]) for name in ("strides", "dilations")} | {"pads": (0, begin, 0, end)}
    op = replace(op, weight=np.expand_dims(op.weight, 2), attributes={**op.attributes, **wide})
    layout = tuple(axis for old in x.layout for axis in ((old,) if old < 2 else (2, 3)))
    n, c, size = x.shape
    y = conv(
        type(kernel)(kernel.program, op, [replace(x, shape=(n, c, 1, size), layout=layout)], kernel.target), template
    )
    n, c, _, size = y.shape
    return replace(y, shape=(n, c, size), layout=tuple(min(axis, 2) for axis in y.layout if axis != 2))


def dense(kernel: Kernel, template: Template | None = None) -> Located:
    """The same with x [..., K] and w [K, N]: a 1×1 convolution over the rows."""
    op = kernel.op
    assert op.weight is not None and op.weight_zero_point is not None
    x = kernel.operands[0]
    depth, filters = op.weight.shape
    shape = (*x.shape[:-1], filters)
    layout = row_major(len(shape)) if op.encoding is None else channels_last(len(shape))
    contiguous = x.lies_as(row_major(len(x.shape))) and Located("", shape, "", layout).lies_as(row_major(len(shape)))
    if op.weight_zero_point.any() or op.weight.dtype != np.int8 or x.dtype not in ("int8", "uint8") or not contiguous:
        return any_dense(kernel, shape)
    rows = prod(x.shape[:-1])
    ones, none = (1, 1), (0, 0, 0, 0)
    product = _workload(kernel, 1, depth, (1, rows), filters, ones, ones, ones, none)
    weight = np.ascontiguousarray(op.weight.T)[:, :, None, None]
    out = Located("", shape, kernel.result_type, layout)
    return (template or _template)(kernel, product, weight, out)


def _workload(
    kernel: Kernel,
    n: int,
    c: int,
    size: tuple[int, int],
    filters: int,
    window: Any,
    strides: Any,
    dilations: Any,
    pads: Any,
) -> Workload:
    instruction = kernel.target.instruction
    known = DOT_PRODUCT.get(instruction.name) if instruction is not None else None
    sizes = (n, c, size, filters, tuple(window), tuple(strides), tuple(dilations), tuple(pads))
    room = registers(kernel.target)
    if known is not None and instruction is not None:
        vectors = room // 2 if known.intrinsic == SMLAL else room  # its eight sums are two vectors
        dtype = known.activation or instruction.activation.numpy().name
        return Workload(*sizes, known.lanes, known.depth, known.intrinsic, dtype, vectors)
    lanes = instruction.lanes if instruction is not None else 4
    return Workload(*sizes, lanes, 1, None, kernel.operands[0].dtype, room)


def _located(kernel: Kernel, shape: tuple[int, ...]) -> Located:
    return Located("", shape, kernel.result_type, channels_last(len(shape)))


def _pack(weight: Array, p: Workload) -> Array:
    """[O, I, R, S] to [O/lanes, R, S, I/depth, lanes, depth], zeros in the padding.

    Filters are innermost for SMLAL, and outside of groups of four channels for deep SDOT: [.., depth/4, lanes, 4].
    """
    o, i, r, s = weight.shape
    full = np.zeros((p.padded_filters, p.padded_channels, r, s), np.int8)
    full[:o, :i] = weight
    filters, steps = p.padded_filters // p.lanes, p.padded_channels // p.depth
    if p.intrinsic in DEEP_SDOT.values():
        groups = full.reshape(filters, p.lanes, steps, p.depth // 4, 4, r, s)
        return np.ascontiguousarray(groups.transpose(0, 5, 6, 2, 3, 1, 4))
    split = full.reshape(filters, p.lanes, steps, p.depth, r, s)
    return np.ascontiguousarray(split.transpose(0, 4, 5, 2, *((3, 1) if p.intrinsic == SMLAL else (1, 3))))


def _inner(p: Workload, o: Any, ci: Any) -> tuple[Any, ...]:
    """Where a filter and a channel lie in the last axes of packed weights."""
    if p.intrinsic in DEEP_SDOT.values():
        return ci // 4, o % p.lanes, ci % 4
    return (ci, o % p.lanes) if p.intrinsic == SMLAL else (o % p.lanes, ci)


def _deep(p: Workload) -> Workload:
    """Steps of as many channels as one load of activations serves, where they divide."""
    depth = next((depth for depth in DEEP_SDOT if p.channels % depth == 0), None)
    return replace(p, depth=depth, intrinsic=DEEP_SDOT[depth]) if p.intrinsic == SDOT and depth else p


def _template(kernel: Kernel, p: Workload, weight: Array, out: Located) -> Located:
    instruction = kernel.target.instruction
    if instruction is not None and instruction.name in MATRIX_PRODUCT and pays(p):
        return matrix_product(kernel, p, weight, out, MATRIX_PRODUCT[instruction.name])
    if instruction is not None and instruction.name == "vpdpbusd" and tiles_pay(p, kernel.target):
        return tile_product(kernel, p, _pack(weight, p), weight, out)
    te, p = kernel.te, _deep(p)
    data, _, factors = arguments(kernel, p, weight, bias_offset(kernel, weight))
    packed = kernel.array(_pack(weight, p), "w")
    finish = finisher(kernel, weight, factors)
    r, s = (te.reduce_axis((0, k), name=name) for k, name in zip(p.kernel, "rs", strict=True))
    co = te.reduce_axis((0, p.padded_channels // p.depth), name="co")
    ci = te.reduce_axis((0, p.depth), name="ci")

    def term(n: Any, h: Any, w: Any, o: Any) -> Any:
        y, x = h * p.strides[0] + r * p.dilations[0], w * p.strides[1] + s * p.dilations[1]
        value = data(n, y, x, co * p.depth + ci).astype("int32")
        factor = packed[o // p.lanes, r, s, co, *_inner(p, o, ci)].astype("int32")
        return te.sum(value * factor, axis=[r, s, co, ci])

    acc = te.compute((p.batch, *p.out, p.padded_filters), term, name="acc")
    result = te.compute(
        (p.batch, *p.out, p.filters),
        lambda n, h, w, o: finish(acc(n, h, w, o), o),
        name="out",
    )
    return kernel.tiled(result, out, p, config(kernel, p), lambda function, tile: _schedule(begun(function), p, tile))


def _finished(p: Workload, tile: Config) -> int:
    """Results that are finished together: of arm64's vectors of four sums as many as make a vector of bytes."""
    sums = p.lanes * tile.vectors
    return next(n for n in (16, 8, p.lanes) if sums % n == 0) if p.intrinsic in (SDOT, *DEEP_SDOT.values()) else p.lanes


def _schedule(function: Any, p: Workload, tile: Config) -> Any:
    """Register tiles; each is finished at once where the filters fill whole vectors, else all at the end."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    if p.filters == p.padded_filters:
        n, h, w, o = sch.get_loops(out)
        wo, wi = sch.split(w, [None, tile.positions])
        oo, oi = sch.split(o, [None, p.lanes * tile.vectors])
        sch.reorder(n, h, oo, wo, wi, oi)
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

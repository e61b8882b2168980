"""Convolutions and dense layers: packed weights, dot-product instructions, int32 sums kept in registers.

Σ (x − z_x)(w − z_w) is computed as Σ x·w with −z_x·Σw folded into the bias; padding holds z_x, so it adds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ....ir.windows import output_size
from ..intrinsics import DOT_PRODUCT
from ..schedule import best_tile, registers
from .depthwise import depthwise
from .direct import any_conv, any_dense, spatial_size
from .kernel import Kernel, Located, channels_last, row_major

__all__ = ["conv", "dense"]

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class _Product:
    """A 2-D convolution with one group, as the template sees it: sizes, window, and the machine's instruction."""

    batch: int
    channels: int
    size: tuple[int, int]
    filters: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    lanes: int
    depth: int  # products summed by one instruction into one lane; 1 without such an instruction
    intrinsic: str | None
    dtype: str  # type the instruction wants activations in
    registers: int  # vectors that may hold sums

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the result."""
        h, w = (
            output_size(
                self.size[d], self.kernel[d], self.strides[d], self.dilations[d], self.pads[d], self.pads[d + 2]
            )
            for d in (0, 1)
        )
        return h, w

    @property
    def padded_channels(self) -> int:
        return -(-self.channels // self.depth) * self.depth

    @property
    def padded_filters(self) -> int:
        return -(-self.filters // self.lanes) * self.lanes

    @property
    def tile(self) -> tuple[int, int]:
        """Output positions and filter vectors of one register tile."""
        return best_tile(self.out[1], self.padded_filters // self.lanes, self.registers)


def conv(kernel: Kernel) -> Located:
    """acc = Σ (x − z_x)(w − z_w) + bias; y = clip(rint(float32(acc) · m) + z_y, low, high), or float32(acc) · m."""
    op = kernel.op
    assert op.weight is not None and op.weight_zero_point is not None
    attributes, weight = op.attributes, op.weight
    group = int(attributes["group"])
    x = kernel.operands[0]
    if weight.ndim != 4 or op.weight_zero_point.any() or weight.dtype != np.int8 or x.dtype not in ("int8", "uint8"):
        return any_conv(kernel)
    if group > 1:
        return depthwise(kernel) if group == x.shape[1] and weight.shape[1] == 1 else any_conv(kernel)
    kernel.relay(0, channels_last(4))
    n, c, h, w = x.shape
    product = _product(
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
    return _template(kernel, product, weight, out)


def dense(kernel: Kernel) -> Located:
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
    product = _product(kernel, 1, depth, (1, rows), filters, ones, ones, ones, none)
    weight = np.ascontiguousarray(op.weight.T)[:, :, None, None]
    out = Located("", shape, kernel.result_type, layout)
    return _template(kernel, product, weight, out)


def _product(
    kernel: Kernel,
    n: int,
    c: int,
    size: tuple[int, int],
    filters: int,
    window: Any,
    strides: Any,
    dilations: Any,
    pads: Any,
) -> _Product:
    instruction = kernel.target.instruction
    known = DOT_PRODUCT.get(instruction.name) if instruction is not None else None
    sizes = (n, c, size, filters, tuple(window), tuple(strides), tuple(dilations), tuple(pads))
    room = registers(kernel.target)
    if known is not None and instruction is not None:
        name, lanes = known
        return _Product(*sizes, lanes, 4, name, instruction.activation.numpy().name, room)
    lanes = instruction.lanes if instruction is not None else 4
    return _Product(*sizes, lanes, 1, None, kernel.operands[0].dtype, room)


def _located(kernel: Kernel, shape: tuple[int, ...]) -> Located:
    return Located("", shape, kernel.result_type, channels_last(len(shape)))


def _pack(weight: Array, p: _Product) -> Array:
    """[O, I, R, S] to [O/lanes, R, S, I/depth, lanes, depth], zeros in the padding."""
    o, i, r, s = weight.shape
    full = np.zeros((p.padded_filters, p.padded_channels, r, s), np.int8)
    full[:o, :i] = weight
    split = full.reshape(p.padded_filters // p.lanes, p.lanes, p.padded_channels // p.depth, p.depth, r, s)
    return np.ascontiguousarray(split.transpose(0, 4, 5, 2, 1, 3))


def _template(kernel: Kernel, p: _Product, weight: Array, out: Located) -> Located:
    op, te = kernel.op, kernel.te
    assert op.bias is not None and op.multiplier is not None
    shift = {("int8", "uint8"): 128, ("uint8", "int8"): -128}.get((kernel.operands[0].dtype, p.dtype), 0)
    zero = kernel.zero_point() + shift
    data = _staged(kernel, p, shift, zero)
    packed = kernel.array(_pack(weight, p), "w")
    sums = weight.astype(np.int64).sum(axis=(1, 2, 3))
    wrapped = (op.bias.astype(np.int64) - zero * sums).astype(np.int32)  # sums are modulo 2³² in any case
    bias = kernel.array(_extend(wrapped, p.padded_filters), "bias")
    factors = kernel.array(_extend(op.multiplier, p.padded_filters), "multiplier")
    clip = kernel.levels()
    r, s = (te.reduce_axis((0, k), name=name) for k, name in zip(p.kernel, "rs", strict=True))
    co = te.reduce_axis((0, p.padded_channels // p.depth), name="co")
    ci = te.reduce_axis((0, p.depth), name="ci")

    def term(n: Any, h: Any, w: Any, o: Any) -> Any:
        y, x = h * p.strides[0] + r * p.dilations[0], w * p.strides[1] + s * p.dilations[1]
        value = data(n, y, x, co * p.depth + ci).astype("int32")
        return te.sum(value * packed[o // p.lanes, r, s, co, o % p.lanes, ci].astype("int32"), axis=[r, s, co, ci])

    acc = te.compute((p.batch, *p.out, p.padded_filters), term, name="acc")
    result = te.compute(
        (p.batch, *p.out, p.filters),
        lambda n, h, w, o: clip((acc(n, h, w, o) + bias[o]).astype("float32") * factors[o]),
        name="out",
    )
    return kernel.finish(result, out, lambda function: _schedule(function, p))


def _extend(array: Array, size: int) -> Array:
    return np.concatenate([array, np.zeros(size - len(array), array.dtype)])


def _staged(kernel: Kernel, p: _Product, shift: int, zero: int) -> Any:
    """The operand as the template reads it: padded with its zero point, in the instruction's type and channel count."""
    tirx = kernel.tirx
    plain = not any(p.pads) and p.channels == p.padded_channels and not shift
    if plain:
        return kernel.operand(0, (p.batch, *p.size, p.channels)).data
    data = kernel.operand(0, (p.batch, *p.size, p.channels)).data
    top, left, bottom, right = p.pads
    border = kernel.scalar(zero, p.dtype, "border")
    rows, columns = p.size

    def element(n: Any, h: Any, w: Any, c: Any) -> Any:
        value = data(n, h - top, w - left, c)
        if shift:
            value = (value.astype("int32") + shift).astype(p.dtype)
        conditions = []
        if top or bottom:
            conditions += [h >= top, h < top + rows]
        if left or right:
            conditions += [w >= left, w < left + columns]
        if p.channels != p.padded_channels:
            conditions.append(c < p.channels)
        return tirx.if_then_else(tirx.all(*conditions), value, border) if conditions else value

    shape = (p.batch, rows + top + bottom, columns + left + right, p.padded_channels)
    return kernel.te.compute(shape, element, name="staged")


def _schedule(function: Any, p: _Product) -> Any:
    """Register tiles; each is finished at once where the filters fill whole vectors, else all at the end."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    positions, vectors = p.tile
    if p.filters == p.padded_filters:
        n, h, w, o = sch.get_loops(out)
        wo, wi = sch.split(w, [None, positions])
        oo, oi = sch.split(o, [None, p.lanes * vectors])
        sch.reorder(n, h, oo, wo, wi, oi)
        sch.vectorize(sch.split(oi, [None, p.lanes])[1])
        sch.unroll(wi)
        sch.compute_at(acc, wo, preserve_unit_loops=True)
    else:
        n, h, w, o, *reduction = sch.get_loops(acc)
        wo, wi = sch.split(w, [None, positions])
        oo, oi = sch.split(o, [None, p.lanes * vectors])
        sch.reorder(n, h, oo, wo, wi, oi, *reduction)
    aw, ao, r, s, co, ci = sch.get_loops(acc)[-6:]
    vector, lane = sch.split(ao, [None, p.lanes])
    sch.reorder(r, s, co, aw, vector, lane, ci)
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

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
from ..intrinsics_arm64 import SMLAL, SMMLA
from ..residual import in_bytes
from ..schedule import registers
from .depthwise import depthwise
from .direct import any_conv, any_dense, spatial_size
from .dot import deep, dot_product
from .epilogue import bias_offset, finisher, reach
from .kernel import Kernel
from .located import Located, channels_last, row_major
from .matrix import MATRIX_DEPTH, matrix_product, pays
from .packing import pack
from .staging import arguments, interleaves
from .tile import pays as tiles_pay
from .tile import tile_product
from .workload import TILE_PRODUCT, Workload

__all__ = ["chosen", "conv", "dense", "product", "without_template", "workload"]

Array = npt.NDArray[np.generic]
Operator = Callable[[Kernel], Located]
Template = Callable[[Kernel, Workload, Array, Located], Located]  # a product of a shape, its weight [O, I, R, S]


def conv(kernel: Kernel, template: Template | None = None, grouped: Operator | None = None) -> Located:
    """acc = Σ (x − z_x)(w − z_w) + bias; y = clip(rint(float32(acc) · m) + z_y, low, high), or float32(acc) · m."""
    op = kernel.op
    assert op.weight is not None and op.weight_zero_point is not None
    attributes, weight = op.attributes, op.weight
    group = int(attributes["group"])
    x = kernel.operands[0]
    if weight.ndim == 3:
        return _in_one_dimension(kernel, template, grouped)
    if not in_bytes(op):
        return any_conv(kernel)
    if group > 1:
        return (grouped or without_template)(kernel)
    n, c, h, w = x.shape
    for i in range(len(kernel.operands)):  # a residual is the second one
        if i or not interleaves(kernel, c):
            kernel.relay(i, channels_last(4))
    work = workload(
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
    if work.kernel == (1, 1) and work.strides == (1, 1) and not any(work.pads) and not interleaves(kernel, c):
        work = replace(work, batch=1, size=(1, n * h * w))  # one long row: more tiles divide it
    out = _located(kernel, (n, weight.shape[0], *spatial_size(kernel)))
    return (template or _template)(kernel, work, weight, out)


def without_template(kernel: Kernel) -> Located:
    """A convolution of several groups on a machine that has a template for one filter a channel or more, if at all."""
    return depthwise(kernel) if int(kernel.op.attributes["group"]) == kernel.operands[0].shape[1] else any_conv(kernel)


def _in_one_dimension(kernel: Kernel, template: Template | None, grouped: Operator | None) -> Located:
    """As in two dimensions, the first of which has size 1."""
    op, x = kernel.op, kernel.operands[0]
    assert op.weight is not None
    begin, end = op.attributes["pads"]
    wide = {name: (1, *op.attributes[name]) for name in ("strides", "dilations")} | {"pads": (0, begin, 0, end)}
    op = replace(op, weight=np.expand_dims(op.weight, 2), attributes={**op.attributes, **wide})
    layout = tuple(axis for old in x.layout for axis in ((old,) if old < 2 else (2, 3)))
    n, c, size = x.shape
    y = conv(
        type(kernel)(kernel.program, op, [replace(x, shape=(n, c, 1, size), layout=layout)], kernel.target),
        template,
        grouped,
    )
    n, c, _, size = y.shape
    return replace(y, shape=(n, c, size), layout=tuple(min(axis, 2) for axis in y.layout if axis != 2))


def dense(kernel: Kernel, template: Template | None = None) -> Located:
    """The same with x [..., K] and w [K, N]: a 1×1 convolution over the rows."""
    op = kernel.op
    assert op.weight is not None and op.weight_zero_point is not None
    for i in range(len(kernel.operands)):  # a residual is the second one
        kernel.relay(i, row_major(len(kernel.operands[i].shape)))
    x = kernel.operands[0]
    depth, filters = op.weight.shape
    shape = (*x.shape[:-1], filters)
    layout = row_major(len(shape))
    if op.weight_zero_point.any() or op.weight.dtype != np.int8 or x.dtype not in ("int8", "uint8"):
        return any_dense(kernel, shape)
    rows = prod(x.shape[:-1])
    ones, none = (1, 1), (0, 0, 0, 0)
    work = workload(kernel, 1, depth, (1, rows), filters, ones, ones, ones, none)
    weight = np.ascontiguousarray(op.weight.T)[:, :, None, None]
    out = Located("", shape, kernel.result_type, layout)
    return (template or _template)(kernel, work, weight, out)


def workload(
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
    """A product as the target's dot-product instruction does it."""
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


def chosen(kernel: Kernel, p: Workload) -> Workload:
    """The workload with the instruction that needs the least time for it: matrix products, tiles or dot products."""
    instruction = kernel.target.instruction
    if instruction is not None and instruction.name in MATRIX_PRODUCT and pays(p):
        return replace(p, depth=MATRIX_DEPTH, intrinsic=MATRIX_PRODUCT[instruction.name])
    if instruction is not None and instruction.name == "vpdpbusd" and tiles_pay(p, kernel.target):
        return replace(p, intrinsic=TILE_PRODUCT)
    return deep(p)


def product(p: Workload) -> Callable[..., Located]:
    """The template of a workload that `chosen` returned."""
    return {TILE_PRODUCT: tile_product, SMMLA: matrix_product}.get(p.intrinsic or "", dot_product)


def _template(kernel: Kernel, dot: Workload, weight: Array, out: Located) -> Located:
    p, largest = chosen(kernel, dot), reach(kernel, weight)
    x = arguments(kernel, p, weight, pack(weight, p), bias_offset(kernel, largest))
    shape = (p.batch, *p.out, p.filters)
    return product(p)(kernel, p, x, finisher(kernel, largest, x.factors, shape), out)

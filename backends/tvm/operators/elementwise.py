"""Quantize, dequantize, requantize, add, mul and tables: one element in, one element out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ....ir.graph import attribute
from ....ir.quantization import integer_range
from .kernel import Kernel
from .located import Located, View, channels_last, row_major
from .staging import interleaves

__all__ = ["add", "dequantize", "mul", "quantize", "requantize", "unary"]

_USUAL = 60  # powers of two: scales within have reciprocals, and quotients remainders, that are far from underflow


def _layout(kernel: Kernel, rank: int) -> tuple[int, ...]:
    """Keep the operand's layout where the result can have it."""
    if kernel.result_type == "float32":
        return row_major(rank)
    same = [place.layout for place in kernel.operands if len(place.shape) == rank and place.dtype != "float32"]
    return same[0] if same else channels_last(rank)


def _flat(kernel: Kernel, shape: tuple[int, ...], layout: tuple[int, ...]) -> bool:
    """Every operand and the result have the same elements in the same order."""
    return bool(shape) and all(place.shape == shape and place.lies_as(layout) for place in kernel.operands)


def _pointwise(kernel: Kernel, shape: tuple[int, ...], element: Callable[[Sequence[Any]], Any]) -> Located:
    """`element(values)` of the operands' elements, broadcast to `shape`; one loop where all lie alike."""
    layout = _layout(kernel, len(shape))
    if _flat(kernel, shape, layout):
        count = (prod(shape),)
        views = [kernel.operand(i, count) for i in range(len(kernel.operands))]
        out = kernel.te.compute(count, lambda i: element([view.data[i] for view in views]), name="out")
        return kernel.finish(out, Located("", shape, kernel.result_type, layout))
    views = [kernel.operand(i) for i in range(len(kernel.operands))]
    return kernel.result(shape, lambda *index: element([view.broadcast(index) for view in views]), layout)


def _along(kernel: Kernel, array: Any, axis: int | None, rank: int, name: str) -> Callable[[Sequence[Any]], Any]:
    """A scale or zero point as a function of the index: per tensor, or per slice along an axis."""
    values = kernel.array(np.asarray(array).reshape(-1), name)
    return lambda index: values[0] if axis is None else values[index[axis]]


def quantize(kernel: Kernel) -> Located:
    """y = clip(rint(x / s_y) + z_y, low, high).

    x is clipped instead, to (low − z_y)·s_y and (high − z_y)·s_y; rounding these is far from changing a level.
    """
    op, encoding, x = kernel.op, kernel.op.encoding, kernel.operand()
    assert encoding is not None
    rank, dtype = len(x.shape), kernel.result_type
    scales, zeros = encoding.scale.astype(np.float64), encoding.zero_point.astype(np.int32)
    bounds = [((level - zeros) * scales).astype(np.float32) for level in (op.low, op.high)]
    low, high = (_along(kernel, bound, encoding.axis, rank, "bound") for bound in bounds)
    scale = _along(kernel, scales.astype(np.float32), encoding.axis, rank, "scale")
    zero = _along(kernel, zeros, encoding.axis, rank, "zero")
    usual = bool((np.abs(np.log2(scales)) < _USUAL).all())
    reciprocal = _along(kernel, (1 / scales).astype(np.float32), encoding.axis, rank, "reciprocal")

    def element(*index: Any) -> Any:
        value = kernel.limited(x(*index), low(index), high(index))
        quotient = kernel.quotient(value, scale(index), reciprocal(index) if usual else None)
        return (kernel.rounded(quotient) + zero(index)).astype(dtype)

    return kernel.result(x.shape, element, row_major(rank) if _as_they_lie(kernel) else None)


def _as_they_lie(kernel: Kernel) -> bool:
    """Whether what reads the result takes it in the order of ONNX.

    A product of activations does, whose rows they are, and convolutions that put few channels together themselves.
    """
    (levels,) = kernel.op.node.outputs
    readers = [use.node for level in levels.uses() for use in level.node.outputs[0].uses()]
    few = len(kernel.operands[0].shape) == 4 and interleaves(kernel, kernel.operands[0].shape[1])
    alone = bool(readers) and all(node.op_type == "Conv" and attribute(node, "group", 1) == 1 for node in readers)
    return (few and alone) or any(node.op_type == "MatMul" for node in readers)


def dequantize(kernel: Kernel) -> Located:
    """y = float32(x − z_x) · s_x, stored as ONNX sees it."""
    encoding, x = kernel.op.inputs[0].encoding, kernel.operand()
    assert encoding is not None
    scale = _along(kernel, encoding.scale.astype(np.float32), encoding.axis, len(x.shape), "scale")
    zero = _along(kernel, encoding.zero_point.astype(np.int32), encoding.axis, len(x.shape), "zero")
    return kernel.result(
        x.shape, lambda *index: (x(*index).astype("int32") - zero(index)).astype("float32") * scale(index)
    )


def requantize(kernel: Kernel) -> Located:
    """y = clip(rint(float32(x − z_x) · m) + z_y, low, high)."""
    op = kernel.op
    assert op.multiplier is not None
    zero, clip = kernel.scalar(kernel.zero_point(), "int32", "zero"), kernel.levels()
    if op.multiplier.ndim == 0:
        factor = kernel.array(op.multiplier.reshape(1), "multiplier")[0]
        return _pointwise(
            kernel, kernel.operands[0].shape, lambda v: clip((v[0].astype("int32") - zero).astype("float32") * factor)
        )
    x = kernel.operand()
    factors = _constant(kernel, op.multiplier, "multiplier")
    shape = np.broadcast_shapes(x.shape, op.multiplier.shape)
    return kernel.result(
        shape,
        lambda *index: clip((x.broadcast(index).astype("int32") - zero).astype("float32") * factors.broadcast(index)),
    )


def add(kernel: Kernel) -> Located:
    """y = clip(rint(Σ float32(x_i − z_i) · m_i [+ c]) + z_y, low, high)."""
    op = kernel.op
    assert op.multiplier is not None
    factors = kernel.array(op.multiplier, "multiplier")
    zeros = kernel.array(np.array([kernel.zero_point(i) for i in range(len(op.inputs))], np.int32), "zeros")
    clip = kernel.levels()

    def total(values: Sequence[Any]) -> Any:
        terms = [(v.astype("int32") - zeros[i]).astype("float32") * factors[i] for i, v in enumerate(values)]
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    shapes = [place.shape for place in kernel.operands]
    if op.addend is None:
        return _pointwise(kernel, np.broadcast_shapes(*shapes), lambda values: clip(total(values)))
    addend = _constant(kernel, op.addend, "addend")
    views = [kernel.operand(i) for i in range(len(kernel.operands))]
    shape = np.broadcast_shapes(*shapes, op.addend.shape)
    return kernel.result(
        shape,
        lambda *index: clip(total([view.broadcast(index) for view in views]) + addend.broadcast(index)),
        _layout(kernel, len(shape)),
    )


def mul(kernel: Kernel) -> Located:
    """y = clip(rint(float32((a − z_a)(b − z_b)) · m) + z_y, low, high), or float32(…) · m."""
    assert kernel.op.multiplier is not None
    factor = kernel.array(kernel.op.multiplier.reshape(1), "multiplier")[0]
    zeros = kernel.array(np.array([kernel.zero_point(0), kernel.zero_point(1)], np.int32), "zeros")
    clip = kernel.levels()

    def product(values: Sequence[Any]) -> Any:
        a, b = (v.astype("int32") - zeros[i] for i, v in enumerate(values))
        return clip((a * b).astype("float32") * factor)

    return _pointwise(kernel, np.broadcast_shapes(*(place.shape for place in kernel.operands)), product)


def unary(kernel: Kernel) -> Located:
    """y = table[x − lowest level of x's type]."""
    op = kernel.op
    assert op.table is not None and op.inputs[0].encoding is not None
    table = kernel.array(op.table, "table")
    lowest = integer_range(op.inputs[0].encoding.dtype)[0]
    return _pointwise(kernel, kernel.operands[0].shape, lambda values: table[values[0].astype("int32") - lowest])


def _constant(kernel: Kernel, array: np.ndarray[Any, Any], name: str) -> View:
    place = Located("", array.shape, str(array.dtype), row_major(array.ndim))
    return View(place, kernel.array(array, name))

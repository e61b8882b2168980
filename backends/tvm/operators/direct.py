"""Convolutions, dense layers and products of activations in plain loops: any rank, group and weight zero point."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ir.windows import output_size
from .kernel import Kernel
from .located import Located, View

__all__ = ["any_conv", "any_dense", "any_matmul", "spatial_size"]


def spatial_size(kernel: Kernel) -> tuple[int, ...]:
    """Spatial size of a convolution's result."""
    attributes, weight = kernel.op.attributes, kernel.op.weight
    assert weight is not None
    rank = weight.ndim - 2
    size = kernel.operands[0].shape[2:]
    return tuple(
        output_size(
            size[d],
            weight.shape[2 + d],
            attributes["strides"][d],
            attributes["dilations"][d],
            attributes["pads"][d],
            attributes["pads"][d + rank],
        )
        for d in range(rank)
    )


def any_conv(kernel: Kernel) -> Located:
    """Any rank, group and weight zero point, in plain loops."""
    op, te, tirx = kernel.op, kernel.te, kernel.tirx
    assert op.weight is not None and op.weight_zero_point is not None
    x, attributes = kernel.operand(), op.attributes
    rank, group = op.weight.ndim - 2, int(attributes["group"])
    filters, depth, *window = op.weight.shape
    zero = op.weight_zero_point.reshape(-1, *[1] * (rank + 1)) if op.weight_zero_point.ndim else op.weight_zero_point
    centered = kernel.array(op.weight.astype(np.int32) - zero, "w")
    value, pads = kernel.centered(x), attributes["pads"]
    taps = [te.reduce_axis((0, int(k)), name=f"k{d}") for d, k in enumerate(window)]
    ci = te.reduce_axis((0, depth), name="ci")

    def term(n: Any, o: Any, *at: Any) -> Any:
        place = [
            at[d] * int(attributes["strides"][d]) + taps[d] * int(attributes["dilations"][d]) - int(pads[d])
            for d in range(rank)
        ]
        conditions = [
            c for d in range(rank) if pads[d] or pads[d + rank] for c in (place[d] >= 0, place[d] < x.shape[2 + d])
        ]
        read = value(n, o // (filters // group) * depth + ci, *place)
        read = tirx.if_then_else(tirx.all(*conditions), read, 0) if conditions else read
        return te.sum(read * centered(o, ci, *taps), axis=[ci, *taps])

    shape = (x.shape[0], filters, *spatial_size(kernel))
    acc = te.compute(shape, term, name="acc")
    return kernel.result(shape, _epilogue(kernel, acc, axis=1), schedule=kernel.last_axis_innermost)


def any_dense(kernel: Kernel, shape: tuple[int, ...]) -> Located:
    """`dense` in plain loops."""
    op, te, x = kernel.op, kernel.te, kernel.operand()
    assert op.weight is not None and op.weight_zero_point is not None
    weight = kernel.array(op.weight.astype(np.int32) - op.weight_zero_point, "w")
    value, k = kernel.centered(x), te.reduce_axis((0, op.weight.shape[0]), name="k")
    acc = te.compute(shape, lambda *i: te.sum(value(*i[:-1], k) * weight(k, i[-1]), axis=k), name="acc")
    return kernel.result(shape, _epilogue(kernel, acc, axis=len(shape) - 1), schedule=kernel.last_axis_innermost)


def any_matmul(kernel: Kernel) -> Located:
    """A product of two activations in plain loops."""
    op, te = kernel.op, kernel.te
    assert op.multiplier is not None
    a, b = kernel.operand(0), kernel.operand(1)
    left, right = kernel.centered(a, 0), kernel.centered(b, 1)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows = a.shape[-2:-1] if len(a.shape) > 1 else ()
    columns = b.shape[-1:] if len(b.shape) > 1 else ()
    k = te.reduce_axis((0, a.shape[-1]), name="k")

    def own(view: View, index: tuple[Any, ...]) -> list[Any]:
        """The batch index of an operand under broadcasting."""
        count = max(len(view.shape) - 2, 0)
        tail = index[len(index) - count :] if count else ()
        return [0 if extent == 1 else i for extent, i in zip(view.shape, tail, strict=False)]

    def term(*index: Any) -> Any:
        outer = index[: len(batch)]
        at_a = [*own(a, outer), *index[len(batch) : len(batch) + len(rows)], k]
        at_b = [*own(b, outer), k, *(index[len(index) - 1 :] if columns else ())]
        return te.sum(left(*at_a) * right(*at_b), axis=k)

    shape = (*batch, *rows, *columns)
    acc = te.compute(shape or (1,), term, name="acc")
    factor, clip = kernel.array(op.multiplier.reshape(1), "multiplier")[0], kernel.levels()
    return kernel.result(
        shape, lambda *i: clip(acc(*(i or (0,))).astype("float32") * factor), schedule=kernel.last_axis_innermost
    )


def _epilogue(kernel: Kernel, acc: Any, axis: int) -> Any:
    op = kernel.op
    assert op.bias is not None and op.multiplier is not None
    bias, factors = kernel.array(op.bias, "bias"), kernel.array(op.multiplier, "multiplier")
    clip = kernel.levels()
    return lambda *i: clip((acc(*i) + bias[i[axis]]).astype("float32") * factors[i[axis]])

"""The operations that only some executors have, in numpy (`planish.ir.integer.OPTIONAL_KINDS`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .integer import IntegerOp
from .kernels import Kernel, centred, convolve, rescale, round_to_levels, weights

__all__ = ["OPTIONAL"]

Array = npt.NDArray[np.generic]


def _conv_transpose(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    """A convolution over x with stride − 1 zeros between its elements, with the kernel turned around."""
    x = centred(op.inputs[0], operands[0]).astype(np.float64)
    w = weights(op, 1).astype(np.float64)
    strides, pads, extra = (op.attributes[k] for k in ("strides", "pads", "output_padding"))
    rank = len(strides)
    spread = np.zeros((*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], strides, strict=True))))
    spread[(slice(None), slice(None), *(slice(None, None, s) for s in strides))] = x
    turned = np.flip(w, tuple(range(2, 2 + rank))).swapaxes(0, 1)
    margins = [k - 1 for k in w.shape[2:]]
    outer = [*margins, *(m + e for m, e in zip(margins, extra, strict=True))]
    attributes = {"strides": (1,) * rank, "dilations": (1,) * rank, "pads": outer, "group": 1}
    acc = convolve(spread, np.ascontiguousarray(turned), attributes)
    kept = tuple(slice(pads[i], acc.shape[2 + i] - pads[i + rank]) for i in range(rank))
    acc = acc[(slice(None), slice(None), *kept)]
    assert op.bias is not None and op.multiplier is not None
    along = (-1,) + (1,) * rank
    return [rescale(op, acc.astype(np.int64) + op.bias.astype(np.int64).reshape(along), op.multiplier.reshape(along))]


def _softmax(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    encoding, axis = op.inputs[0].encoding, op.attributes["axis"]
    assert encoding is not None and op.encoding is not None
    x = centred(op.inputs[0], operands[0]).astype(np.float64) * np.float64(encoding.scale)
    share = np.exp(x - x.max(axis, keepdims=True))
    share /= share.sum(axis, keepdims=True)
    return [round_to_levels(op, share.astype(np.float32) / op.encoding.scale)]


def _resize_linear(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    assert op.encoding is not None
    x = centred(op.inputs[0], operands[0]).astype(np.float64)
    for axis, matrix in zip(op.attributes["axes"], op.attributes["matrices"], strict=True):
        x = np.moveaxis(np.tensordot(matrix.astype(np.float64), x, (1, axis)), 0, axis)
    info = np.iinfo(op.encoding.dtype.numpy())
    levels = np.rint(x.astype(np.float32)) + op.encoding.zero_point
    clipped: Array = np.clip(levels, info.min, info.max).astype(op.encoding.dtype.numpy())
    return [clipped]


OPTIONAL: Mapping[str, Kernel] = {
    "conv_transpose": _conv_transpose,
    "resize_linear": _resize_linear,
    "softmax": _softmax,
}

"""Each kind of integer operation in numpy, to the bit as `planish.ir.integer` has it: `KERNELS[kind](op, operands)`.

Sums of products run as floating-point matrix products in a type in which every partial sum is an exact integer
(float32 below 2²⁴, else float64), so the order in which the library adds them cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .integer import IntegerOp, Operand
from .quantization import Encoding, integer_range

__all__ = ["KERNELS", "Kernel", "centred", "convolve", "rescale", "round_to_levels", "weights"]

Array = npt.NDArray[np.generic]
Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[Any]
Kernel = Callable[[IntegerOp, Sequence[Array]], list[Array]]


def rescale(op: IntegerOp, acc: Array, multiplier: Float32) -> Array:
    """`clip(rint(float32(acc) · m) + z_y, lo, hi)`, or `float32(acc) · m` where the result is float."""
    scaled = acc.astype(np.float32) * multiplier
    return scaled if op.encoding is None else round_to_levels(op, scaled)


def round_to_levels(op: IntegerOp, x: Float32) -> Array:
    """`clip(rint(x) + z_y, lo, hi)`."""
    assert op.encoding is not None
    levels = np.rint(x) + op.encoding.zero_point.astype(np.float32)
    clipped: Array = np.clip(levels, op.low, op.high).astype(op.encoding.dtype.numpy())
    return clipped


def centred(operand: Operand, x: Array) -> Int32:
    """x − z_x."""
    assert operand.encoding is not None
    return x.astype(np.int32) - operand.encoding.zero_point


def _multiplier(op: IntegerOp) -> Float32:
    assert op.multiplier is not None
    return op.multiplier


def _exact_type(op: IntegerOp, w: Int32) -> type[np.float32] | type[np.float64]:
    """float32 where Σ|w| · levels + |b| keeps every partial sum an integer below 2²⁴."""
    encoding = op.inputs[0].encoding
    assert encoding is not None
    low, high = integer_range(encoding.dtype)
    channel_axis = 0 if op.kind == "conv" else 1
    summed = tuple(a for a in range(w.ndim) if a != channel_axis)
    largest = int(np.abs(w).sum(axis=summed, dtype=np.int64).max(initial=0)) * (high - low)
    return np.float32 if largest < 2**24 else np.float64


def weights(op: IntegerOp, channel_axis: int) -> Int32:
    """w − z_w."""
    assert op.weight is not None and op.weight_zero_point is not None
    zero = op.weight_zero_point
    if zero.ndim:
        zero = zero.reshape([-1 if a == channel_axis else 1 for a in range(op.weight.ndim)])
    w: Int32 = op.weight.astype(np.int32) - zero
    return w


def _bias(op: IntegerOp) -> npt.NDArray[np.int64]:
    assert op.bias is not None
    return op.bias.astype(np.int64)


def _taps(x: Floats, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[Floats]:
    """For each kernel position t in C order, the view of x that it multiplies: x[…, t·dilation : … : stride]."""
    sizes = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)]
    taps = []
    for at in np.ndindex(*kernel):
        begins = [t * d for t, d in zip(at, dilations, strict=True)]
        window = tuple(slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(begins, sizes, strides, strict=True))
        taps.append(x[(slice(None), slice(None), *window)])
    return taps


def _padded(x: Floats, pads: Sequence[int], value: float) -> Floats:
    rank = len(pads) // 2
    widths = [(0, 0), (0, 0)] + [(pads[i], pads[i + rank]) for i in range(rank)]
    return np.pad(x, widths, constant_values=value) if any(pads) else x


def convolve(x: Floats, w: Floats, attributes: Mapping[str, Any]) -> Floats:
    """Σ x·w over a group's channels and kernel positions: x [N, C, *size], w [M, C/group, *kernel] ⇒ [N, M, *size]."""
    group = attributes["group"]
    x = _padded(x, attributes["pads"], 0)
    n, m = x.shape[0], w.shape[0]
    columns = w.reshape(group, m // group, w.shape[1], -1)
    taps = _taps(x, w.shape[2:], attributes["strides"], attributes["dilations"])
    size = taps[0].shape[2:]
    result: Floats | None = None
    for i, tap in enumerate(taps):
        left = columns[..., i]
        right = tap.reshape(n, group, tap.shape[1] // group, -1)
        term = left * right if left.shape[2] == 1 else np.matmul(left, right)
        result = term if result is None else np.add(result, term, out=result)
    assert result is not None
    return result.reshape(n, m, *size)


def _conv(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    w = weights(op, 0)
    exact = _exact_type(op, w)
    acc = convolve(centred(op.inputs[0], operands[0]).astype(exact), w.astype(exact), op.attributes)
    along = (-1,) + (1,) * (acc.ndim - 2)
    return [rescale(op, acc.astype(np.int64) + _bias(op).reshape(along), _multiplier(op).reshape(along))]


def _dense(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    w = weights(op, 1)
    exact = _exact_type(op, w)
    acc = np.matmul(centred(op.inputs[0], operands[0]).astype(exact), w.astype(exact))
    return [rescale(op, acc.astype(np.int64) + _bias(op), _multiplier(op))]


def _matmul(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    a, b = (centred(o, x).astype(np.float64) for o, x in zip(op.inputs, operands, strict=True))
    return [rescale(op, np.matmul(a, b), _multiplier(op))]


def _mul(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    a, b = (centred(o, x) for o, x in zip(op.inputs, operands, strict=True))
    return [rescale(op, a.astype(np.int64) * b, _multiplier(op))]


def _add(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    exact = np.float64 if any(operand.is_wide for operand in op.inputs) else np.float32
    m = _multiplier(op).astype(exact)
    terms = [centred(o, x).astype(exact) * m[i] for i, (o, x) in enumerate(zip(op.inputs, operands, strict=True))]
    if op.addend is not None:
        terms.append(op.addend)
    return [round_to_levels(op, terms[0] + terms[1])]


def _requantize(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    return [rescale(op, centred(op.inputs[0], operands[0]), _multiplier(op))]


def _quantize(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    assert op.encoding is not None
    return [op.encoding.quantize(operands[0])]


def _dequantize(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    encoding = op.inputs[0].encoding
    assert encoding is not None
    return [encoding.dequantize(operands[0])]


def _unary(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    encoding: Encoding | None = op.inputs[0].encoding
    assert encoding is not None and op.table is not None
    return [op.table[operands[0].astype(np.int32) - integer_range(encoding.dtype)[0]]]


def _mean(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    x = centred(op.inputs[0], operands[0])
    acc = x.sum(axis=op.attributes["axes"], keepdims=op.attributes["keepdims"], dtype=np.int64)
    return [rescale(op, acc, _multiplier(op))]


def _average_pool(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    x = _padded(centred(op.inputs[0], operands[0]), op.attributes["pads"], 0)
    taps = _taps(x, op.attributes["kernel"], op.attributes["strides"], op.attributes["dilations"])
    acc = taps[0].astype(np.int32)
    for tap in taps[1:]:
        acc += tap
    return [rescale(op, acc, _multiplier(op))]


def _max_pool(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    assert op.encoding is not None
    x = _padded(operands[0], op.attributes["pads"], integer_range(op.encoding.dtype)[0])
    taps = _taps(x, op.attributes["kernel"], op.attributes["strides"], op.attributes["dilations"])
    result = taps[0].copy()
    for tap in taps[1:]:
        np.maximum(result, tap, out=result)
    return [result]


def _max(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    x: Floats = operands[0]
    return [x.max(axis=op.attributes["axes"], keepdims=op.attributes["keepdims"])]


def _reshape(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    return [operands[0].reshape(op.attributes["shape"])]


def _transpose(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    return [operands[0].transpose(op.attributes["perm"])]


def _slice(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    x = operands[0]
    for axis, start, size, step in zip(*(op.attributes[k] for k in ("axes", "starts", "sizes", "steps")), strict=True):
        x = np.take(x, start + step * np.arange(size), axis=axis)
    return [x]


def _pad(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    pads, mode = op.attributes["pads"], op.attributes["mode"]
    rank = len(pads) // 2
    widths = [(pads[i], pads[i + rank]) for i in range(rank)]
    extra = {"constant_values": op.attributes["level"]} if mode == "constant" else {}
    padded: Array = np.pad(operands[0], widths, mode=mode, **extra)
    return [padded]


def _concat(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    return [np.concatenate(list(operands), axis=op.attributes["axis"])]


def _split(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    ends = np.cumsum(op.attributes["sizes"])[:-1]
    return list(np.split(operands[0], ends, axis=op.attributes["axis"]))


def _gather(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    return [np.take(operands[0], op.attributes["indices"], axis=op.attributes["axis"])]


def _depth_to_space(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    (n, c, h, w), b = operands[0].shape, op.attributes["blocksize"]
    if op.attributes["mode"] == "DCR":
        blocks = operands[0].reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        blocks = operands[0].reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return [blocks.reshape(n, c // b**2, h * b, w * b)]


def _space_to_depth(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    (n, c, h, w), b = operands[0].shape, op.attributes["blocksize"]
    blocks = operands[0].reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return [blocks.reshape(n, c * b**2, h // b, w // b)]


def _resize(op: IntegerOp, operands: Sequence[Array]) -> list[Array]:
    x = operands[0]
    for axis, indices in zip(op.attributes["axes"], op.attributes["indices"], strict=True):
        x = np.take(x, indices, axis=axis)
    return [x]


KERNELS: Mapping[str, Kernel] = {
    "add": _add,
    "average_pool": _average_pool,
    "concat": _concat,
    "conv": _conv,
    "dense": _dense,
    "depth_to_space": _depth_to_space,
    "dequantize": _dequantize,
    "gather": _gather,
    "matmul": _matmul,
    "max": _max,
    "max_pool": _max_pool,
    "mean": _mean,
    "mul": _mul,
    "pad": _pad,
    "quantize": _quantize,
    "requantize": _requantize,
    "reshape": _reshape,
    "resize": _resize,
    "slice": _slice,
    "space_to_depth": _space_to_depth,
    "split": _split,
    "transpose": _transpose,
    "unary": _unary,
}

"""`to_tosa`: an int8 TFLite network of ours as a TOSA graph, operator by operator, for a second opinion on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ModelError
from ...targets.tflite import Network, Operation, Tensor
from .tosa_products import convolution, fully_connected, pool
from .tosa_walk import Walk, first, integers, reshaped, scale, sliced, zero

__all__ = ["OPERATORS", "to_tosa"]

Array = npt.NDArray[Any]
_HEADROOM = 20  # bits that operands of a sum are shifted left by before they are added


def to_tosa(network: Network) -> bytes:
    """The serialized graph; ModelError for an operator, or a type, that is not translated."""
    walk = Walk()
    for tensor in network.inputs:
        _check(tensor, "input")
        walk.names[tensor] = walk.tosa.input(tensor.shape)
    for operation in network.operations:
        if operation.code not in OPERATORS:
            raise ModelError(f"{operation.code} is not translated to TOSA", where=operation.outputs[0].name, hint=_HINT)
        _check(operation.outputs[0], operation.code)
        OPERATORS[operation.code](walk, operation)
    return walk.tosa.finish([(walk.of(t), t.shape) for t in network.outputs])


_HINT = "the cross-check covers int8 networks of the operators in tosa_network.OPERATORS"


def _check(tensor: Tensor, what: str) -> None:
    if tensor.dtype != "int8":
        raise ModelError(f"{what} has {tensor.dtype} values", where=tensor.name, hint=_HINT)


def _sum(walk: Walk, operation: Operation) -> None:
    """Both operands on twice the larger scale with 20 more bits, added in int32, and back."""
    a, b = operation.inputs[:2]
    y, tosa = operation.outputs[0], walk.tosa
    assert a is not None and b is not None
    common, types = 2 * max(scale(a), scale(b)), tosa.types
    rank = len(y.shape)
    terms = []
    for tensor in (a, b):
        value = reshaped(walk, walk.of(tensor), (1,) * (rank - len(tensor.shape)) + tensor.shape)
        shape = (1,) * (rank - len(tensor.shape)) + tensor.shape
        share = scale(tensor) / common * (1 << _HEADROOM)
        terms.append(tosa.rescale(value, shape, share, (zero(tensor), 0), (types.INT8, types.INT32)))
    op, kind = (tosa.op.ADD, "Add") if operation.code == "ADD" else (tosa.op.SUB, "Sub")
    acc = tosa.add(op, terms, y.shape, tosa.attribute(kind), types.INT32)
    back = common / (1 << _HEADROOM) / scale(y)
    walk.give(operation, tosa.rescale(acc, y.shape, back, (0, zero(y)), (types.INT32, types.INT8)))


def _mean(walk: Walk, operation: Operation) -> None:
    """int32 sums along one axis after another, divided by the last RESCALE."""
    x, y, tosa = first(operation), operation.outputs[0], walk.tosa
    types, axes = tosa.types, integers(operation.inputs[1])
    shape = list(x.shape)
    value = tosa.rescale(walk.of(x), shape, 1.0, (zero(x), 0), (types.INT8, types.INT32))
    for axis in axes:
        shape[axis] = 1
        value = tosa.add(tosa.op.REDUCE_SUM, [value], shape, tosa.attribute("ReduceSum", axis), types.INT32)
    count = float(np.prod([x.shape[a] for a in axes]))
    value = tosa.rescale(value, shape, scale(x) / scale(y) / count, (0, zero(y)), (types.INT32, types.INT8))
    walk.give(operation, reshaped(walk, value, y.shape))


def _pad(walk: Walk, operation: Operation) -> None:
    x, y, tosa = first(operation), operation.outputs[0], walk.tosa
    level = integers(operation.inputs[2])[0] if operation.code == "PADV2" else zero(x)
    inputs = [walk.of(x), tosa.shape(integers(operation.inputs[1])), tosa.int8(level)]
    walk.give(operation, tosa.add(tosa.op.PAD, inputs, y.shape, tosa.attribute("Pad")))


def _reshape(walk: Walk, operation: Operation) -> None:
    walk.give(operation, reshaped(walk, walk.of(first(operation)), operation.outputs[0].shape))


def _slice(walk: Walk, operation: Operation) -> None:
    starts, sizes = integers(operation.inputs[1]), list(operation.outputs[0].shape)
    walk.give(operation, sliced(walk, walk.of(first(operation)), starts, sizes))


def _strided_slice(walk: Walk, operation: Operation) -> None:
    """A slice, and of it the first element of every step: a maximum over windows of one."""
    starts, steps = integers(operation.inputs[1]), integers(operation.inputs[3])
    y, tosa = operation.outputs[0], walk.tosa
    sizes = [(n - 1) * s + 1 for n, s in zip(y.shape, steps, strict=True)]
    value = sliced(walk, walk.of(first(operation)), starts, sizes)
    attribute = tosa.attribute("MaxPool2d", [1, 1], steps[1:3], [0] * 4, 1)
    walk.give(operation, tosa.add(tosa.op.MAX_POOL2D, [value], y.shape, attribute))


def _transpose(walk: Walk, operation: Operation) -> None:
    tosa, perm = walk.tosa, integers(operation.inputs[1])
    attribute = tosa.attribute("Transpose", perm)
    x = walk.of(first(operation))
    walk.give(operation, tosa.add(tosa.op.TRANSPOSE, [x], operation.outputs[0].shape, attribute))


def _concat(walk: Walk, operation: Operation) -> None:
    tosa = walk.tosa
    attribute = tosa.attribute("Concat", operation.options["axis"])
    inputs = [walk.of(t) for t in operation.inputs]
    walk.give(operation, tosa.add(tosa.op.CONCAT, inputs, operation.outputs[0].shape, attribute))


def _requantize(walk: Walk, operation: Operation) -> None:
    x, y, types = first(operation), operation.outputs[0], walk.tosa.types
    ratio = scale(x) / scale(y)
    value = walk.tosa.rescale(walk.of(x), y.shape, ratio, (zero(x), zero(y)), (types.INT8, types.INT8))
    walk.give(operation, value)


def _limit(walk: Walk, operation: Operation) -> None:
    (level,) = set(integers(operation.inputs[1]))
    low, high = (level, 127) if operation.code == "MAXIMUM" else (-128, level)
    walk.give(operation, walk.tosa.clamp(walk.of(first(operation)), operation.outputs[0].shape, low, high))


# TFLite builtin -> how it is written
OPERATORS: Mapping[str, Callable[[Walk, Operation], None]] = {
    "ADD": _sum,
    "AVERAGE_POOL_2D": pool,
    "CONCATENATION": _concat,
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": convolution,
    "FULLY_CONNECTED": fully_connected,
    "MAXIMUM": _limit,
    "MAX_POOL_2D": pool,
    "MEAN": _mean,
    "MINIMUM": _limit,
    "PAD": _pad,
    "PADV2": _pad,
    "QUANTIZE": _requantize,
    "RESHAPE": _reshape,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _sum,
    "TRANSPOSE": _transpose,
}

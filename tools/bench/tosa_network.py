"""`to_tosa`: an int8 TFLite network of ours as a TOSA graph, operator by operator, for a second opinion on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ModelError
from ...targets.tflite import Network, Operation, Tensor
from .tosa_writer import TosaWriter

__all__ = ["OPERATORS", "to_tosa"]

Array = npt.NDArray[Any]
_FUSED: Mapping[str, tuple[float, float]] = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}
_HEADROOM = 20  # bits that operands of a sum are shifted left by before they are added


@dataclass
class _Walk:
    """names: the TOSA value that holds each tensor."""

    tosa: TosaWriter = field(default_factory=TosaWriter)
    names: dict[Tensor, str] = field(default_factory=dict)

    def of(self, tensor: Tensor | None) -> str:
        assert tensor is not None
        if tensor not in self.names:
            assert tensor.data is not None
            self.names[tensor] = self.tosa.constant(np.ascontiguousarray(tensor.data), self.tosa.types.INT8)
        return self.names[tensor]

    def give(self, operation: Operation, value: str) -> None:
        """The result, clipped by the operator's fused activation."""
        result = operation.outputs[0]
        ends = _FUSED.get(str(operation.options.get("fusedActivationFunction", "NONE")))
        if ends is not None:
            low, high = (int(np.clip(np.rint(e / _scale(result)) + _zero(result), -128, 127)) for e in ends)
            value = self.tosa.clamp(value, result.shape, low, high)
        self.names[result] = value


def to_tosa(network: Network) -> bytes:
    """The serialized graph; ModelError for an operator, or a type, that is not translated."""
    walk = _Walk()
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


def _scale(tensor: Tensor) -> float:
    assert tensor.scale is not None
    return float(tensor.scale)


def _zero(tensor: Tensor) -> int:
    assert tensor.zero_point is not None
    return int(tensor.zero_point)


def _first(operation: Operation) -> Tensor:
    found = operation.inputs[0]
    assert found is not None
    return found


def _integers(tensor: Tensor | None) -> list[int]:
    assert tensor is not None and tensor.data is not None
    return [int(v) for v in np.ravel(tensor.data)]


def _convolution(walk: _Walk, operation: Operation) -> None:
    x, y, weight = _first(operation), operation.outputs[0], operation.inputs[1]
    bias = operation.inputs[2] if len(operation.inputs) > 2 else None
    assert weight is not None and weight.data is not None and weight.scale is not None
    tosa, depthwise = walk.tosa, operation.code == "DEPTHWISE_CONV_2D"
    kernel: Array = weight.data.transpose(1, 2, 3, 0) if depthwise else weight.data
    if depthwise:
        kernel = kernel.reshape(*kernel.shape[:2], x.shape[3], -1)
    strides = [operation.options["strideH"], operation.options["strideW"]]
    dilations = [operation.options["dilationHFactor"], operation.options["dilationWFactor"]]
    value, pads = _covered(walk, x, y, weight.shape[1:3], strides, dilations)
    channels = weight.shape[3 if depthwise else 0]
    addend = np.zeros(channels, np.int32) if bias is None or bias.data is None else bias.data.astype(np.int32)
    inputs = [
        value,
        tosa.constant(np.ascontiguousarray(kernel), tosa.types.INT8),
        tosa.constant(addend, tosa.types.INT32),
    ]
    inputs += [tosa.int8(_zero(x)), tosa.int8(0)]
    code, kind = (tosa.op.DEPTHWISE_CONV2D, "DepthwiseConv2d") if depthwise else (tosa.op.CONV2D, "Conv2d")
    attribute = tosa.attribute(kind, pads, strides, dilations, False, tosa.types.INT32)
    acc = tosa.add(code, inputs, y.shape, attribute, tosa.types.INT32)
    walk.give(operation, _requantized(walk, acc, x, weight, y))


def _covered(
    walk: _Walk, x: Tensor, y: Tensor, kernel: Any, strides: list[int], dilations: list[int]
) -> tuple[str, list[int]]:
    """The operand and TOSA's padding (top, bottom, left, right): windows must cover it exactly."""
    value, size, pads = walk.of(x), list(x.shape), []
    for i in (0, 1):
        span = (y.shape[1 + i] - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1
        missing = span - size[1 + i]
        pads += [max(missing, 0) // 2, max(missing, 0) - max(missing, 0) // 2]
        if missing < 0:
            size[1 + i] = span
    if size != list(x.shape):
        value = _sliced(walk, value, [0] * 4, size)
    return value, pads


def _requantized(walk: _Walk, acc: str, x: Tensor, weight: Tensor, y: Tensor) -> str:
    assert weight.scale is not None
    scales = np.atleast_1d(np.asarray(weight.scale, np.float64)) * _scale(x) / _scale(y)
    types = walk.tosa.types
    return walk.tosa.rescale(acc, y.shape, scales, (0, _zero(y)), (types.INT32, types.INT8))


def _fully_connected(walk: _Walk, operation: Operation) -> None:
    """A 1 × 1 convolution over rows."""
    x, y, weight = _first(operation), operation.outputs[0], operation.inputs[1]
    bias = operation.inputs[2] if len(operation.inputs) > 2 else None
    assert weight is not None and weight.data is not None
    tosa, (outputs, inputs) = walk.tosa, weight.shape
    rows = int(np.prod(x.shape)) // inputs
    value = _reshaped(walk, walk.of(x), (1, rows, 1, inputs))
    addend = np.zeros(outputs, np.int32) if bias is None or bias.data is None else bias.data.astype(np.int32)
    kernel = np.ascontiguousarray(weight.data.reshape(outputs, 1, 1, inputs))
    operands = [value, tosa.constant(kernel, tosa.types.INT8), tosa.constant(addend, tosa.types.INT32)]
    attribute = tosa.attribute("Conv2d", [0] * 4, [1, 1], [1, 1], False, tosa.types.INT32)
    operands += [tosa.int8(_zero(x)), tosa.int8(0)]
    acc = tosa.add(tosa.op.CONV2D, operands, (1, rows, 1, outputs), attribute, tosa.types.INT32)
    flat = Tensor(y.name, (1, rows, 1, outputs), y.dtype, y.scale, y.zero_point)
    walk.give(operation, _reshaped(walk, _requantized(walk, acc, x, weight, flat), y.shape))


def _sum(walk: _Walk, operation: Operation) -> None:
    """Both operands on twice the larger scale with 20 more bits, added in int32, and back."""
    a, b = operation.inputs[:2]
    y, tosa = operation.outputs[0], walk.tosa
    assert a is not None and b is not None
    common, types = 2 * max(_scale(a), _scale(b)), tosa.types
    rank = len(y.shape)
    terms = []
    for tensor in (a, b):
        value = _reshaped(walk, walk.of(tensor), (1,) * (rank - len(tensor.shape)) + tensor.shape)
        shape = (1,) * (rank - len(tensor.shape)) + tensor.shape
        share = _scale(tensor) / common * (1 << _HEADROOM)
        terms.append(tosa.rescale(value, shape, share, (_zero(tensor), 0), (types.INT8, types.INT32)))
    op, kind = (tosa.op.ADD, "Add") if operation.code == "ADD" else (tosa.op.SUB, "Sub")
    acc = tosa.add(op, terms, y.shape, tosa.attribute(kind), types.INT32)
    back = common / (1 << _HEADROOM) / _scale(y)
    walk.give(operation, tosa.rescale(acc, y.shape, back, (0, _zero(y)), (types.INT32, types.INT8)))


def _mean(walk: _Walk, operation: Operation) -> None:
    """int32 sums along one axis after another, divided by the last RESCALE."""
    x, y, tosa = _first(operation), operation.outputs[0], walk.tosa
    types, axes = tosa.types, _integers(operation.inputs[1])
    shape = list(x.shape)
    value = tosa.rescale(walk.of(x), shape, 1.0, (_zero(x), 0), (types.INT8, types.INT32))
    for axis in axes:
        shape[axis] = 1
        value = tosa.add(tosa.op.REDUCE_SUM, [value], shape, tosa.attribute("ReduceSum", axis), types.INT32)
    count = float(np.prod([x.shape[a] for a in axes]))
    value = tosa.rescale(value, shape, _scale(x) / _scale(y) / count, (0, _zero(y)), (types.INT32, types.INT8))
    walk.give(operation, _reshaped(walk, value, y.shape))


def _pool(walk: _Walk, operation: Operation) -> None:
    x, y, tosa = _first(operation), operation.outputs[0], walk.tosa
    kernel = [operation.options["filterHeight"], operation.options["filterWidth"]]
    strides = [operation.options["strideH"], operation.options["strideW"]]
    value, pads = _covered(walk, x, y, kernel, strides, [1, 1])
    if operation.code == "MAX_POOL_2D":
        attribute = tosa.attribute("MaxPool2d", kernel, strides, pads, 1)
        walk.give(operation, tosa.add(tosa.op.MAX_POOL2D, [value], y.shape, attribute))
        return
    attribute = tosa.attribute("AvgPool2d", kernel, strides, pads, tosa.types.INT32)
    points = [tosa.int8(_zero(x)), tosa.int8(_zero(y))]
    walk.give(operation, tosa.add(tosa.op.AVG_POOL2D, [value, *points], y.shape, attribute))


def _pad(walk: _Walk, operation: Operation) -> None:
    x, y, tosa = _first(operation), operation.outputs[0], walk.tosa
    level = _integers(operation.inputs[2])[0] if operation.code == "PADV2" else _zero(x)
    inputs = [walk.of(x), tosa.shape(_integers(operation.inputs[1])), tosa.int8(level)]
    walk.give(operation, tosa.add(tosa.op.PAD, inputs, y.shape, tosa.attribute("Pad")))


def _reshape(walk: _Walk, operation: Operation) -> None:
    walk.give(operation, _reshaped(walk, walk.of(_first(operation)), operation.outputs[0].shape))


def _reshaped(walk: _Walk, value: str, shape: Any) -> str:
    tosa = walk.tosa
    return tosa.add(tosa.op.RESHAPE, [value, tosa.shape(list(shape))], shape, tosa.attribute("Reshape"))


def _slice(walk: _Walk, operation: Operation) -> None:
    starts, sizes = _integers(operation.inputs[1]), list(operation.outputs[0].shape)
    walk.give(operation, _sliced(walk, walk.of(_first(operation)), starts, sizes))


def _sliced(walk: _Walk, value: str, starts: list[int], sizes: list[int]) -> str:
    tosa = walk.tosa
    return tosa.add(tosa.op.SLICE, [value, tosa.shape(starts), tosa.shape(sizes)], sizes, tosa.attribute("Slice"))


def _strided_slice(walk: _Walk, operation: Operation) -> None:
    """A slice, and of it the first element of every step: a maximum over windows of one."""
    starts, steps = _integers(operation.inputs[1]), _integers(operation.inputs[3])
    y, tosa = operation.outputs[0], walk.tosa
    sizes = [(n - 1) * s + 1 for n, s in zip(y.shape, steps, strict=True)]
    value = _sliced(walk, walk.of(_first(operation)), starts, sizes)
    attribute = tosa.attribute("MaxPool2d", [1, 1], steps[1:3], [0] * 4, 1)
    walk.give(operation, tosa.add(tosa.op.MAX_POOL2D, [value], y.shape, attribute))


def _transpose(walk: _Walk, operation: Operation) -> None:
    tosa, perm = walk.tosa, _integers(operation.inputs[1])
    attribute = tosa.attribute("Transpose", perm)
    x = walk.of(_first(operation))
    walk.give(operation, tosa.add(tosa.op.TRANSPOSE, [x], operation.outputs[0].shape, attribute))


def _concat(walk: _Walk, operation: Operation) -> None:
    tosa = walk.tosa
    attribute = tosa.attribute("Concat", operation.options["axis"])
    inputs = [walk.of(t) for t in operation.inputs]
    walk.give(operation, tosa.add(tosa.op.CONCAT, inputs, operation.outputs[0].shape, attribute))


def _requantize(walk: _Walk, operation: Operation) -> None:
    x, y, types = _first(operation), operation.outputs[0], walk.tosa.types
    scale = _scale(x) / _scale(y)
    value = walk.tosa.rescale(walk.of(x), y.shape, scale, (_zero(x), _zero(y)), (types.INT8, types.INT8))
    walk.give(operation, value)


def _limit(walk: _Walk, operation: Operation) -> None:
    (level,) = set(_integers(operation.inputs[1]))
    low, high = (level, 127) if operation.code == "MAXIMUM" else (-128, level)
    walk.give(operation, walk.tosa.clamp(walk.of(_first(operation)), operation.outputs[0].shape, low, high))


# TFLite builtin -> how it is written
OPERATORS: Mapping[str, Callable[[_Walk, Operation], None]] = {
    "ADD": _sum,
    "AVERAGE_POOL_2D": _pool,
    "CONCATENATION": _concat,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FULLY_CONNECTED": _fully_connected,
    "MAXIMUM": _limit,
    "MAX_POOL_2D": _pool,
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

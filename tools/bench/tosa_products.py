"""Convolutions, matrix products and pools of a TFLite network in TOSA, whose windows cover the operand exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...targets.tflite import Operation, Tensor
from .tosa_walk import Walk, first, reshaped, scale, sliced, zero

__all__ = ["convolution", "fully_connected", "pool"]

Array = npt.NDArray[Any]


def convolution(walk: Walk, operation: Operation) -> None:
    """CONV2D or DEPTHWISE_CONV2D into int32, and RESCALE with one scale for each channel."""
    x, y, weight = first(operation), operation.outputs[0], operation.inputs[1]
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
    inputs += [tosa.int8(zero(x)), tosa.int8(0)]
    code, kind = (tosa.op.DEPTHWISE_CONV2D, "DepthwiseConv2d") if depthwise else (tosa.op.CONV2D, "Conv2d")
    attribute = tosa.attribute(kind, pads, strides, dilations, False, tosa.types.INT32)
    acc = tosa.add(code, inputs, y.shape, attribute, tosa.types.INT32)
    walk.give(operation, _requantized(walk, acc, x, weight, y))


def _covered(
    walk: Walk, x: Tensor, y: Tensor, kernel: Any, strides: list[int], dilations: list[int]
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
        value = sliced(walk, value, [0] * 4, size)
    return value, pads


def _requantized(walk: Walk, acc: str, x: Tensor, weight: Tensor, y: Tensor) -> str:
    assert weight.scale is not None
    scales = np.atleast_1d(np.asarray(weight.scale, np.float64)) * scale(x) / scale(y)
    types = walk.tosa.types
    return walk.tosa.rescale(acc, y.shape, scales, (0, zero(y)), (types.INT32, types.INT8))


def fully_connected(walk: Walk, operation: Operation) -> None:
    """A 1 × 1 convolution over rows."""
    x, y, weight = first(operation), operation.outputs[0], operation.inputs[1]
    bias = operation.inputs[2] if len(operation.inputs) > 2 else None
    assert weight is not None and weight.data is not None
    tosa, (outputs, inputs) = walk.tosa, weight.shape
    rows = int(np.prod(x.shape)) // inputs
    value = reshaped(walk, walk.of(x), (1, rows, 1, inputs))
    addend = np.zeros(outputs, np.int32) if bias is None or bias.data is None else bias.data.astype(np.int32)
    kernel = np.ascontiguousarray(weight.data.reshape(outputs, 1, 1, inputs))
    operands = [value, tosa.constant(kernel, tosa.types.INT8), tosa.constant(addend, tosa.types.INT32)]
    attribute = tosa.attribute("Conv2d", [0] * 4, [1, 1], [1, 1], False, tosa.types.INT32)
    operands += [tosa.int8(zero(x)), tosa.int8(0)]
    acc = tosa.add(tosa.op.CONV2D, operands, (1, rows, 1, outputs), attribute, tosa.types.INT32)
    flat = Tensor(y.name, (1, rows, 1, outputs), y.dtype, y.scale, y.zero_point)
    walk.give(operation, reshaped(walk, _requantized(walk, acc, x, weight, flat), y.shape))


def pool(walk: Walk, operation: Operation) -> None:
    """MAX_POOL2D or AVG_POOL2D."""
    x, y, tosa = first(operation), operation.outputs[0], walk.tosa
    kernel = [operation.options["filterHeight"], operation.options["filterWidth"]]
    strides = [operation.options["strideH"], operation.options["strideW"]]
    value, pads = _covered(walk, x, y, kernel, strides, [1, 1])
    if operation.code == "MAX_POOL_2D":
        attribute = tosa.attribute("MaxPool2d", kernel, strides, pads, 1)
        walk.give(operation, tosa.add(tosa.op.MAX_POOL2D, [value], y.shape, attribute))
        return
    attribute = tosa.attribute("AvgPool2d", kernel, strides, pads, tosa.types.INT32)
    points = [tosa.int8(zero(x)), tosa.int8(zero(y))]
    walk.give(operation, tosa.add(tosa.op.AVG_POOL2D, [value, *points], y.shape, attribute))

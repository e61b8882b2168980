"""Predicates of the Ethos-U contract: what an operator must meet, one function for each of Vela's constraints."""

from __future__ import annotations

import numpy as np

from .tflite import Operation, Tensor

__all__ = [
    "WEIGHT_SUM",
    "WINDOW",
    "batch_is_one",
    "depth_reduction",
    "int8_factors",
    "is_integer",
    "is_narrow",
    "is_per_tensor",
    "is_quantized",
    "linear_scale",
    "mean_elements",
    "nearest_scale",
    "pool_window",
    "power_of_two",
    "same_encoding",
    "softmax_rows",
    "stride_of_conv",
    "strides",
    "transpose_size",
    "transposed_stride",
    "volume",
    "weight_sum",
]

WEIGHT_SUM = 127 * (1 << 16)  # Σ|w| of one output channel, for 8-bit feature maps
WINDOW = 256


def _maps(operation: Operation) -> list[Tensor]:
    """The feature maps that every rule about types is for: the operand and the results."""
    first = 2 if operation.code == "TRANSPOSE_CONV" else 0  # behind the shape and the weights
    return [t for t in (operation.inputs[first], *operation.outputs) if t is not None]


def is_quantized(operation: Operation) -> bool:
    """Every feature map has a scale."""
    return all(t.scale is not None for t in _maps(operation))


def is_integer(operation: Operation) -> bool:
    """Every feature map is of integers."""
    return all(t.dtype in ("int8", "uint8", "int16", "int32") for t in _maps(operation))


def is_narrow(operation: Operation) -> bool:
    """Feature maps of 8 or 16 bits."""
    return all(t.dtype in ("int8", "uint8", "int16") for t in _maps(operation))


def is_per_tensor(operation: Operation) -> bool:
    """No feature map has a scale for each slice."""
    return all(t.scale is None or t.scale.size == 1 for t in _maps(operation))


def _kernel(operation: Operation) -> tuple[int, int]:
    if "filterHeight" in operation.options:
        return operation.options["filterHeight"], operation.options["filterWidth"]
    weight = operation.inputs[1]
    assert weight is not None
    return weight.shape[1], weight.shape[2]


def strides(operation: Operation) -> tuple[int, int]:
    """Along height and width."""
    return operation.options["strideH"], operation.options["strideW"]


def stride_of_conv(operation: Operation) -> bool:
    """At most 3, or any without padding and dilation."""
    dilated = max(operation.options.get("dilationHFactor", 1), operation.options.get("dilationWFactor", 1)) > 1
    return max(strides(operation)) <= 3 or (operation.options["padding"] == "VALID" and not dilated)


def weight_sum(operation: Operation) -> bool:
    """Σ|w| of each output channel within the limit."""
    weight = operation.inputs[1]
    if weight is None or weight.data is None:
        return True
    axes = tuple(i for i in range(len(weight.shape)) if i != weight.axis)
    return int(np.abs(weight.data.astype(np.int64)).sum(axis=axes).max(initial=0)) <= WEIGHT_SUM


def pool_window(operation: Operation) -> bool:
    """A window that fits: 8 each way where padding is counted out, else 256 high and 256² large."""
    height, width = _kernel(operation)
    if operation.code == "AVERAGE_POOL_2D" and operation.options["padding"] == "SAME":
        return max(height, width) <= 8
    return height * width <= WINDOW**2 and height <= WINDOW


def batch_is_one(operation: Operation) -> bool:
    """The batch is 1."""
    x = operation.inputs[0]
    return x is None or len(x.shape) < 4 or x.shape[0] == 1


def _reduced(operation: Operation) -> tuple[int, ...]:
    axes = operation.inputs[1]
    assert axes is not None and axes.data is not None
    return tuple(int(a) for a in np.ravel(axes.data))


def depth_reduction(operation: Operation) -> bool:
    """Channels are not reduced, or height, width or depth is 1."""
    x = operation.inputs[0]
    if x is None or len(x.shape) < 3 or len(x.shape) - 1 not in _reduced(operation):
        return True
    return 1 in x.shape[-3:]


def same_encoding(operation: Operation) -> bool:
    """All operands and results have one encoding."""
    tensors = [t for t in (*operation.inputs, *operation.outputs) if t is not None]
    return all(t.encoding == tensors[0].encoding for t in tensors)


def nearest_scale(operation: Operation) -> bool:
    """A scale of 2, 4 or 8, equal in both directions."""
    return _scales(operation, (2, 4, 8))


def linear_scale(operation: Operation) -> bool:
    """As to the nearest neighbour, but only 2 where coordinates are those of the middle of a pixel."""
    return _scales(operation, (2,) if operation.options["halfPixelCenters"] else (2, 4, 8))


def power_of_two(operation: Operation) -> bool:
    """A scale of 1, 2, 4, … 1024 in each direction."""
    factors = _factors(operation)
    return factors is None or all(f in [1 << n for n in range(11)] for f in factors)


def _scales(operation: Operation, allowed: tuple[int, ...]) -> bool:
    x, y = operation.inputs[0], operation.outputs[0]
    factors = _factors(operation)
    assert x is not None
    if factors is None:
        return True
    tall, wide = factors
    if tall != wide and not (tall == y.shape[1] == 1 or wide == y.shape[2] == 1):
        return False
    return max(factors) in allowed


def _factors(operation: Operation) -> tuple[float, float] | None:
    """Result by operand, of height and width (each less one where corners are aligned); None where nothing scales."""
    x, y = operation.inputs[0], operation.outputs[0]
    assert x is not None
    if x.shape[1:3] in ((1, 1), y.shape[1:3]):
        return None
    less = int(operation.options["alignCorners"])
    tall, wide = ((b - less) / max(a - less, 1) for a, b in zip(x.shape[1:3], y.shape[1:3], strict=True))
    return tall, wide


def transpose_size(operation: Operation) -> bool:
    """Every product of all axes but two is at most 2¹⁶."""
    x, y = operation.inputs[0], operation.outputs[0]
    assert x is not None
    return x.shape == y.shape or len(x.shape) <= 3 or all(n <= 1 << 16 for n in _pairs(x.shape))


def _pairs(shape: tuple[int, ...]) -> list[int]:
    total = int(np.prod(shape))
    return [total // (a * b) for i, a in enumerate(shape) for b in shape[i + 1 :]]


def int8_factors(operation: Operation) -> bool:
    """The factors are int8."""
    x = operation.inputs[0]
    return x is None or x.dtype == "int8"


def mean_elements(operation: Operation) -> bool:
    """At most 2¹⁶ elements of 16 bits, 2²⁴ of 8, and less than 4096 along each axis."""
    x = operation.inputs[0]
    assert x is not None
    sizes = [x.shape[a] for a in _reduced(operation)]
    return int(np.prod(sizes)) <= (1 << 16 if x.dtype == "int16" else 1 << 24) and max(sizes, default=0) < 4096


def softmax_rows(operation: Operation) -> bool:
    """Fewer than 2¹⁶ rows."""
    x = operation.inputs[0]
    assert x is not None
    return int(np.prod(x.shape[:-1])) < 1 << 16


def transposed_stride(operation: Operation) -> bool:
    """1 or 2 in both directions; 2 along a line that is one high, or one wide."""
    x = operation.inputs[2]
    assert x is not None
    stride, kernel = strides(operation), _kernel(operation)
    if stride in ((1, 1), (2, 2)):
        return True
    flat = [x.shape[1 + i] == kernel[i] == 1 for i in (0, 1)]
    return (stride == (1, 2) and flat[0]) or (stride == (2, 1) and flat[1])


def volume(operation: Operation) -> bool:
    """Steps above 1 along height and width only."""
    steps = operation.inputs[3]
    assert steps is not None and steps.data is not None
    apart = [i for i, step in enumerate(np.ravel(steps.data)) if int(step) != 1]
    rank = len(steps.data)
    return all(rank - 3 <= i < rank - 1 for i in apart)

"""What an Ethos-U takes, as tables that run: `verdict(operation, member)` says why an operator stays on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .ethosu import Accelerator
from .tflite import Operation, Tensor

__all__ = ["OPERATORS", "Rule", "Verdict", "verdict"]

_ALL = ("u55", "u65", "u85")
_SMALL = ("u55", "u65")
_WEIGHT_SUM = 127 * (1 << 16)  # Σ|w| of one output channel, for 8-bit feature maps
_WINDOW = 256


@dataclass(frozen=True)
class Verdict:
    """Why an operator runs on the CPU, and what would change that."""

    reason: str
    fix: str


@dataclass(frozen=True)
class Rule:
    """holds: whether the operator meets it; families: the members that ask for it."""

    holds: Callable[[Operation], bool]
    reason: str
    fix: str
    families: tuple[str, ...] = _ALL


def _maps(operation: Operation) -> list[Tensor]:
    """The feature maps: the first input, a second one of the same kind, and the results."""
    return [t for t in (*operation.inputs[:1], *operation.outputs) if t is not None]


def _quantized(operation: Operation) -> bool:
    return all(t.scale is not None for t in _maps(operation))


def _integer(operation: Operation) -> bool:
    return all(t.dtype in ("int8", "uint8", "int16", "int32") for t in _maps(operation))


def _narrow(operation: Operation) -> bool:
    return all(t.dtype in ("int8", "uint8", "int16") for t in _maps(operation))


def _per_tensor(operation: Operation) -> bool:
    return all(t.scale is None or t.scale.size == 1 for t in _maps(operation))


def _kernel(operation: Operation) -> tuple[int, int]:
    if "filterHeight" in operation.options:
        return operation.options["filterHeight"], operation.options["filterWidth"]
    weight = operation.inputs[1]
    assert weight is not None
    return weight.shape[1], weight.shape[2]


def _strides(operation: Operation) -> tuple[int, int]:
    return operation.options["strideH"], operation.options["strideW"]


def _wide_strides(operation: Operation) -> bool:
    dilated = max(operation.options.get("dilationHFactor", 1), operation.options.get("dilationWFactor", 1)) > 1
    return max(_strides(operation)) <= 3 or (operation.options["padding"] == "VALID" and not dilated)


def _weight_sum(operation: Operation) -> bool:
    weight = operation.inputs[1]
    if weight is None or weight.data is None:
        return True
    axes = tuple(i for i in range(len(weight.shape)) if i != weight.axis)
    return int(np.abs(weight.data.astype(np.int64)).sum(axis=axes).max(initial=0)) <= _WEIGHT_SUM


def _pool_window(operation: Operation) -> bool:
    height, width = _kernel(operation)
    if operation.code == "AVERAGE_POOL_2D" and operation.options["padding"] == "SAME":
        return max(height, width) <= 8
    return height * width <= _WINDOW**2 and height <= _WINDOW


def _batch_of_one(operation: Operation) -> bool:
    x = operation.inputs[0]
    return x is None or len(x.shape) < 4 or x.shape[0] == 1


def _reduced(operation: Operation) -> tuple[int, ...]:
    axes = operation.inputs[1]
    assert axes is not None and axes.data is not None
    return tuple(int(a) for a in np.ravel(axes.data))


def _depth_reduction(operation: Operation) -> bool:
    x = operation.inputs[0]
    if x is None or len(x.shape) < 3 or len(x.shape) - 1 not in _reduced(operation):
        return True
    return 1 in x.shape[-3:]


def _same_encoding(operation: Operation) -> bool:
    tensors = [t for t in (*operation.inputs, *operation.outputs) if t is not None]
    return all(t.encoding == tensors[0].encoding for t in tensors)


def _scaling(operation: Operation) -> bool:
    x, y = operation.inputs[0], operation.outputs[0]
    assert x is not None
    (h, w), (oh, ow) = x.shape[1:3], y.shape[1:3]
    if (h, w) in ((1, 1), (oh, ow)):
        return True
    if oh * w != ow * h and 1 not in (oh, ow):
        return False
    return oh % h == 0 and ow % w == 0 and max(oh // h, ow // w) in (2, 4, 8)


def _transpose_size(operation: Operation) -> bool:
    x, y = operation.inputs[0], operation.outputs[0]
    assert x is not None
    return x.shape == y.shape or len(x.shape) <= 3 or all(n <= 1 << 16 for n in _pairs(x.shape))


def _pairs(shape: tuple[int, ...]) -> list[int]:
    total = int(np.prod(shape))
    return [total // (a * b) for i, a in enumerate(shape) for b in shape[i + 1 :]]


def _no_factor_int16(operation: Operation) -> bool:
    x = operation.inputs[0]
    return x is None or x.dtype == "int8"


_INTEGER = Rule(
    _integer, "its values are float", "quantize it: give --data, or look at why `quantize` left it (--explain)"
)
_QUANTIZED = Rule(_quantized, "a value has no quantization", "give the value a QuantizeLinear and a DequantizeLinear")
_NARROW = Rule(_narrow, "feature maps of 32 bits", "quantize to int8")
_PER_TENSOR = Rule(_per_tensor, "an activation has a scale for each slice", "use one scale for the tensor")
_GENERIC = (_INTEGER, _QUANTIZED, _PER_TENSOR)
_WEIGHTS = Rule(_weight_sum, f"Σ|w| of an output channel is above {_WEIGHT_SUM}", "split the layer's input channels")
_STRIDE = Rule(_wide_strides, "a stride above 3 with padding or dilation", "pad with a Pad in front", _SMALL)
_STRIDE_3 = Rule(lambda o: max(_strides(o)) <= 3, "a stride above 3", "use a stride of at most 3, and a pool", _SMALL)
_POOL = Rule(_pool_window, f"a window above {_WINDOW} high or {_WINDOW}² large", "pool twice with smaller windows")
_SAME = Rule(_same_encoding, "operands and result have different encodings", "give them one scale and zero point")
_ONE_BATCH = Rule(_batch_of_one, "the batch is not 1", "compile for batch 1", _SMALL)
_DEPTH = Rule(_depth_reduction, "a mean over the channels", "transpose the channels to a spatial axis", _SMALL)
_ELEMENTS = (*_GENERIC, _NARROW)

# TFLite builtin -> what it must meet, beyond existing in this table; what is not here runs on the CPU
OPERATORS: Mapping[str, tuple[Rule, ...]] = {
    "ABS": _ELEMENTS,
    "ADD": _GENERIC,
    "AVERAGE_POOL_2D": (*_ELEMENTS, _POOL, _STRIDE),
    "BATCH_MATMUL": (*_GENERIC, Rule(_no_factor_int16, "factors that are not int8", "quantize to int8", _SMALL)),
    "CONCATENATION": _ELEMENTS,
    "CONV_2D": (*_ELEMENTS, _WEIGHTS, _STRIDE),
    "DEPTHWISE_CONV_2D": (*_ELEMENTS, _WEIGHTS, _STRIDE_3),
    "ELU": _ELEMENTS,
    "EXP": _ELEMENTS,
    "FULLY_CONNECTED": (*_GENERIC, _WEIGHTS),
    "GELU": _ELEMENTS,
    "HARD_SWISH": _ELEMENTS,
    "LEAKY_RELU": _ELEMENTS,
    "LOG": _ELEMENTS,
    "LOGISTIC": _ELEMENTS,
    "MAXIMUM": (*_ELEMENTS, _SAME),
    "MAX_POOL_2D": (*_ELEMENTS, _POOL, _STRIDE),
    "MEAN": (*_ELEMENTS, _ONE_BATCH, _DEPTH),
    "MINIMUM": (*_ELEMENTS, _SAME),
    "MIRROR_PAD": (_INTEGER, _NARROW),
    "MUL": _GENERIC,
    "NEG": _GENERIC,
    "PAD": (_INTEGER, _NARROW),
    "PADV2": (_INTEGER, _NARROW),
    "QUANTIZE": (_INTEGER, _NARROW),
    "REDUCE_MAX": _ELEMENTS,
    "RELU": _ELEMENTS,
    "RESHAPE": _GENERIC,
    "RESIZE_NEAREST_NEIGHBOR": (
        *_ELEMENTS,
        Rule(_scaling, "a scale other than 2, 4 or 8, equal in both directions", "scale by 2, 4 or 8", _SMALL),
    ),
    "RSQRT": _ELEMENTS,
    "SLICE": _ELEMENTS,
    "SOFTMAX": _ELEMENTS,
    "SPLIT_V": _ELEMENTS,
    "SQUARED_DIFFERENCE": _ELEMENTS,
    "STRIDED_SLICE": _ELEMENTS,
    "SUB": _GENERIC,
    "SUM": _GENERIC,
    "TANH": _ELEMENTS,
    "TRANSPOSE": (_INTEGER, Rule(_transpose_size, "axes too long to transpose", "transpose smaller pieces", _SMALL)),
    "TRANSPOSE_CONV": (*_ELEMENTS, _WEIGHTS),
}
# builtins that only the largest family takes
_U85: Mapping[str, tuple[Rule, ...]] = {
    "GATHER": (
        *_GENERIC,
        Rule(lambda o: o.options["axis"] == o.options["batchDims"], "indices along an inner axis", "slice instead"),
    ),
}


def verdict(operation: Operation, member: Accelerator) -> Verdict | None:
    """Why the operator cannot run on this NPU, by the first rule it breaks; None when it can."""
    table = {**OPERATORS, **_U85} if member.family == "u85" else OPERATORS
    rules = table.get(operation.code)
    if rules is None:
        if not _integer(operation):
            return Verdict(_INTEGER.reason, _INTEGER.fix)
        return Verdict(f"Ethos-{member.family.upper()} has no {operation.code}", "replace the operator")
    for rule in rules:
        if member.family in rule.families and not rule.holds(operation):
            return Verdict(rule.reason, rule.fix)
    return None

"""What an Ethos-U takes, as tables that run: `verdict(operation, member)` says why an operator stays on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import ethosu_rules as meets
from .ethosu import Accelerator
from .tflite import Operation

__all__ = ["OPERATORS", "Rule", "Verdict", "verdict"]

_ALL = ("u55", "u65", "u85")
_SMALL = ("u55", "u65")
_LARGE = ("u85",)


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


_INTEGER = Rule(
    meets.is_integer, "its values are float", "quantize it: give --data, or look at why `quantize` left it (--explain)"
)
_QUANTIZED = Rule(meets.is_quantized, "a value has no quantization", "quantize it as well")
_NARROW = Rule(meets.is_narrow, "feature maps of 32 bits", "quantize to int8")
_PER_TENSOR = Rule(meets.is_per_tensor, "an activation has a scale for each slice", "use one scale for the tensor")
_GENERIC = (_INTEGER, _QUANTIZED, _PER_TENSOR)
_WEIGHTS = Rule(meets.weight_sum, f"Σ|w| of a channel is above {meets.WEIGHT_SUM}", "split the layer's input channels")
_STRIDE = Rule(meets.stride_of_conv, "a stride above 3 with padding or dilation", "pad with a Pad in front", _SMALL)
_STRIDE_3 = Rule(lambda o: max(meets.strides(o)) <= 3, "a stride above 3", "use a stride up to 3, and a pool", _SMALL)
_POOL = Rule(meets.pool_window, f"a window above {meets.WINDOW} high or {meets.WINDOW}² large", "pool in two steps")
_SAME = Rule(meets.same_encoding, "operands and result have different encodings", "give them one scale and zero point")
_ONE_BATCH = Rule(meets.batch_is_one, "the batch is not 1", "compile for batch 1", _SMALL)
_MEAN = Rule(meets.mean_elements, "a mean over too many elements", "take the mean in two steps")
_DEPTH = Rule(meets.depth_reduction, "a mean over the channels", "transpose the channels to a spatial axis", _SMALL)
_ELEMENTS = (*_GENERIC, _NARROW)

# TFLite builtin -> what it must meet, beyond existing in this table; what is not here runs on the CPU
OPERATORS: Mapping[str, tuple[Rule, ...]] = {
    "ABS": _ELEMENTS,
    "ADD": _GENERIC,
    "AVERAGE_POOL_2D": (*_ELEMENTS, _POOL, _STRIDE),
    "BATCH_MATMUL": (*_GENERIC, Rule(meets.int8_factors, "factors that are not int8", "quantize to int8", _SMALL)),
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
    "MEAN": (*_ELEMENTS, _MEAN, _ONE_BATCH, _DEPTH),
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
    "RESIZE_BILINEAR": (
        *_ELEMENTS,
        Rule(meets.linear_scale, "a scale other than 2 (from corners also 4, 8)", "scale by 2, more than once", _SMALL),
        Rule(meets.power_of_two, "a scale that is no power of two", "scale by a power of two", _LARGE),
    ),
    "RESIZE_NEAREST_NEIGHBOR": (
        *_ELEMENTS,
        Rule(meets.nearest_scale, "a scale other than 2, 4 or 8 both ways", "scale by 2, 4 or 8", _SMALL),
    ),
    "RSQRT": _ELEMENTS,
    "SLICE": _ELEMENTS,
    "SOFTMAX": (*_ELEMENTS, Rule(meets.softmax_rows, "2¹⁶ rows or more", "split the rows")),
    "SPLIT_V": _ELEMENTS,
    "SQUARED_DIFFERENCE": _ELEMENTS,
    "STRIDED_SLICE": (
        *_ELEMENTS,
        Rule(meets.volume, "steps along the batch or the channels", "step along height and width, or gather"),
    ),
    "SUB": _GENERIC,
    "SUM": _GENERIC,
    "TANH": _ELEMENTS,
    "TRANSPOSE": (
        _INTEGER,
        Rule(meets.transpose_size, "axes too long to transpose", "transpose pieces", _SMALL),
    ),
    "TRANSPOSE_CONV": (
        *_ELEMENTS,
        _WEIGHTS,
        Rule(meets.transposed_stride, "strides other than 1 × 1 and 2 × 2", "use stride 2, more than once", _SMALL),
    ),
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
        if not meets.is_integer(operation):
            return Verdict(_INTEGER.reason, _INTEGER.fix)
        return Verdict(f"Ethos-{member.family.upper()} has no {operation.code}", "replace the operator")
    for rule in rules:
        if member.family in rule.families and not rule.holds(operation):
            return Verdict(rule.reason, rule.fix)
    return None

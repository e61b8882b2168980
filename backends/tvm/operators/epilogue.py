"""What follows the sums of a convolution, which begin at the biases: multiplier, rounding, narrowing.

On arm64 conversions between int32 and float32 take four times as long as sums, so both are sums there: float32 around
1.5 · 2²³ holds integers only, and as int32 its bits count them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ....ir.quantization import integer_range
from ..blocks import exchanged, realized
from .arithmetic import MIDDLE, MIDDLE_BITS
from .kernel import Kernel

__all__ = ["begun", "bias_offset", "finisher", "reach", "residual_arrays", "with_residual"]

Array = npt.NDArray[np.generic]
Reach = npt.NDArray[np.int64]

_CONVERTED = 2**22  # sums below lie around `MIDDLE`
_NARROWED = 2**15 - 2**9  # integers below stay int16 with any zero point of 8 bits added


def bias_offset(kernel: Kernel, largest: Reach) -> int:
    """What biases carry for `finisher`: with it a sum is the bits of the float32 1.5 · 2²³ + sum, where sums allow."""
    small = kernel.sums_convert and kernel.op.encoding is not None and largest.max() < _CONVERTED
    return MIDDLE_BITS if small else 0


def finisher(kernel: Kernel, largest: Reach, factors: Any, shape: Sequence[int] = ()) -> Callable[..., Any]:
    """`clip(rint(float32(acc) · m) + z_y, low, high)` of a sum and its filter; before a residual, of its index as well.

    largest: |sum| by filter, at most; acc: with the bias and `bias_offset` in it; factors: an array for all filters;
    shape: of the results, as the index counts them.
    """
    added = residual_arrays(kernel, shape)
    middle = kernel.tirx.const(MIDDLE, "float32")
    levels = _narrowed(kernel) if _small(kernel, largest) else kernel.levels()
    if not bias_offset(kernel, largest):
        return lambda acc, o, *at: levels(with_residual(kernel, added, acc.astype("float32") * factors[o], at))

    def finish(acc: Any, o: Any, *at: Any) -> Any:
        scaled = (kernel.tirx.reinterpret("float32", acc) - middle) * factors[o]
        return levels(with_residual(kernel, added, scaled, at))

    return finish


def residual_arrays(kernel: Kernel, shape: Sequence[int]) -> list[Any]:
    """What `with_residual` reads: the last operand under a shape, and numbers; nothing where there is no residual."""
    residual, made = kernel.residual, kernel.op
    if residual is None:
        return []
    factors, other = residual.addition.multiplier, residual.other.encoding
    assert made.encoding is not None and factors is not None and other is not None
    zero = int(made.encoding.zero_point)
    numbers = [made.low - zero, made.high - zero, factors[residual.own], factors[1 - residual.own]]
    return [
        kernel.operand(1, tuple(shape)).data,
        kernel.array(np.array(numbers, np.float32), "residual"),
        kernel.array(np.array([int(other.zero_point)], np.int32), "residual_zero"),
    ]


def with_residual(kernel: Kernel, arrays: Sequence[Any], scaled: Any, index: Sequence[Any]) -> Any:
    """`q · m_q + float32(r − z_r) · m_r` of a scaled sum; the sum itself without a residual.

    arrays: those of `residual_arrays`, or buffers of them.
    """
    if not arrays:
        return scaled
    other, numbers, zero = arrays
    own = kernel.whole(kernel.limited(scaled, numbers[0], numbers[1]))
    return own * numbers[2] + kernel.number(other[tuple(index)], zero[0]) * numbers[3]


def begun(function: Any) -> Any:
    """The PrimFunc with the sums of block `acc` beginning at its argument `bias`, for which TE has no form.

    bias: by the last axis of the sums, and by as many of their first ones as it has besides.
    """
    from tvm import tirx

    bias = next(buffer for buffer in function.params if buffer.name == "bias")

    def started(realize: Any) -> Any:
        old = realize.block
        if old.name_hint != "acc":
            return realized(realize, body=exchanged(old.body, started))
        *front, filter_ = old.init.indices
        start = tirx.BufferLoad(bias, [*front[: len(bias.shape) - 1], filter_])
        return realized(realize, init=tirx.BufferStore(old.init.buffer, start, old.init.indices))

    return function.with_body(started(function.body))


def reach(kernel: Kernel, weight: Array) -> Reach:
    """The largest |Σ (x − z_x)w + bias| that each filter can give; weight [O, …]."""
    encoding, bias = kernel.op.inputs[0].encoding, kernel.op.bias
    assert encoding is not None and bias is not None
    sums = np.abs(weight.astype(np.int64)).sum(axis=tuple(range(1, weight.ndim)))
    found: Reach = sums * encoding.span + np.abs(bias.astype(np.int64))
    return found


def _small(kernel: Kernel, largest: Reach) -> bool:
    """Scaled sums fit 16 bits, so that they need not be clipped before they are rounded to levels of 8."""
    if not kernel.sums_convert or kernel.result_type not in ("int8", "uint8"):
        return False
    assert kernel.last.multiplier is not None
    factors = np.abs(kernel.last.multiplier.astype(np.float64))
    if kernel.residual is None:
        return bool((largest * factors).max() < _NARROWED)
    spans = [operand.encoding.span for operand in kernel.last.inputs if operand.encoding is not None]
    return bool(factors @ spans < _NARROWED)


def _narrowed(kernel: Kernel) -> Callable[[Any], Any]:
    """`Kernel.levels` of what fits 16 bits: narrowing saturates at the type's own bounds."""
    encoding, tirx, dtype = kernel.last.encoding, kernel.tirx, kernel.result_type
    assert encoding is not None
    lowest, highest = integer_range(encoding.dtype)
    low, high = int(kernel.last.low), int(kernel.last.high)
    zero = int(encoding.zero_point.reshape(-1)[0])
    # Rounding to even stays what it is around an even number of levels more: one sum does both.
    even = zero % 2 == 0
    middle = kernel.scalar(MIDDLE + zero if even else MIDDLE, "float32", "middle")
    moves = None if even else kernel.scalar(zero, "int16", "zero_point")
    least = kernel.scalar(low, dtype, "low") if low > lowest else None
    most = kernel.scalar(high, dtype, "high") if high < highest else None

    def levels(scaled: Any) -> Any:
        counted = kernel.counted(scaled, middle).astype("int16")
        moved = counted if moves is None else counted + moves
        narrow = tirx.max(tirx.min(moved, tirx.const(highest, "int16")), tirx.const(lowest, "int16")).astype(dtype)
        narrow = narrow if least is None else tirx.max(narrow, least)
        return narrow if most is None else tirx.min(narrow, most)

    return levels

"""What a template reads: the operand as it is, with a border, or put together to words; biases and multipliers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..intrinsics import DOT_PRODUCT
from .kernel import Kernel
from .located import Located, inside, row_major
from .workload import Operands, Workload, folded_bias

__all__ = ["arguments", "interleaves", "sign_shift", "staged"]

Array = npt.NDArray[np.generic]

_WORD = 4  # bytes


def interleaves(kernel: Kernel, channels: int) -> bool:
    """The instruction takes words of four channels, and a position has fewer, as in a first layer."""
    instruction = kernel.target.instruction
    known = DOT_PRODUCT.get(instruction.name) if instruction is not None else None
    return kernel.interleaves and known is not None and known.depth == _WORD > channels


def arguments(kernel: Kernel, p: Workload, weight: Array, packed: Array, offset: int = 0) -> Operands:
    """The operand as the instruction reads it, biases with −z_x·Σw + offset in them, multipliers; filled up with 0."""
    op = kernel.op
    assert op.multiplier is not None
    shift = sign_shift(kernel.operands[0].dtype, p)
    zero = kernel.zero_point() + shift
    if interleaves(kernel, p.channels) and p.size == kernel.operands[0].shape[2:]:
        data = _interleaved(kernel, p, shift, zero)
    else:
        data = staged(kernel, p, kernel.operand(0, (p.batch, *p.size, p.channels)).data, shift, zero)
    biases = (folded_bias(kernel, weight, zero).astype(np.int64) + offset).astype(np.int32)
    bias = kernel.array(_extend(biases, p.padded_filters), "bias")
    factors = kernel.array(_extend(op.multiplier, p.padded_filters), "multiplier")
    return Operands(data, bias, factors, kernel.array(packed, "w"))


def sign_shift(dtype: str, p: Workload) -> int:
    """What is added to levels of a type for an instruction that takes the other sign."""
    return {("int8", "uint8"): 128, ("uint8", "int8"): -128}.get((dtype, p.dtype), 0)


def _extend(array: Array, size: int) -> Array:
    return np.concatenate([array, np.zeros(size - len(array), array.dtype)])


def staged(kernel: Kernel, p: Workload, data: Any, shift: int, zero: int) -> Any:
    """Elements data(n, h, w, c) as the template reads them: padded with the zero point, in the instruction's type and
    channel count; `data` itself where it is all that.
    """
    tirx = kernel.tirx
    converted = kernel.operands[0].dtype != p.dtype
    if not any(p.pads) and p.channels == p.padded_channels and not converted:
        return data
    top, left, bottom, right = p.pads
    border = kernel.scalar(zero, p.dtype, "border")
    rows, columns = p.size

    def element(n: Any, h: Any, w: Any, c: Any) -> Any:
        value = data(n, h - top, w - left, c)
        if converted:
            value = (value.astype("int32") + shift).astype(p.dtype)
        conditions = inside(h, w, p.pads, p.size)
        if p.channels != p.padded_channels:
            conditions.append(c < p.channels)
        return tirx.if_then_else(tirx.all(*conditions), value, border) if conditions else value

    shape = (p.batch, rows + top + bottom, columns + left + right, p.padded_channels)
    return kernel.te.compute(shape, element, name="staged")


def _interleaved(kernel: Kernel, p: Workload, shift: int, zero: int) -> Any:
    """The operand, in any layout, as an argument [image, row, column, 4] of `kernel`, with its border, by a kernel of
    its own; shift: what is added to its levels, zero: what lies around it.
    """
    own = type(kernel)(kernel.program, kernel.op, [kernel.operands[0]], kernel.target)
    x, tirx = own.operand(), own.tirx
    (top, left, bottom, right), (rows, columns) = p.pads, p.size
    border = own.scalar((zero & 255) * 0x01010101 - (zero >> 7 & 1) * 2**32, "int32", "border")
    flip = shift & 255  # ± 128 changes one bit

    def element(n: Any, h: Any, w: Any) -> Any:
        word: Any = 0
        for c in range(p.channels):
            byte = x(n, c, h - top, w - left).astype("uint8").astype("int32") ^ flip
            word = word | tirx.shift_left(byte, tirx.const(8 * c, "int32"))
        conditions = inside(h, w, p.pads, p.size)
        return tirx.if_then_else(tirx.all(*conditions), word, border) if conditions else word

    shape = (p.batch, rows + top + bottom, columns + left + right)
    out = own.te.compute(shape, element, name="out")
    found = own.finish(out, Located("", shape, "int32", row_major(3)), lambda function: function)
    return kernel.argument(found.tensor, (*shape, _WORD), p.dtype, "staged")

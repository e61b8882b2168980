"""float32 arithmetic in vectors of int32, equal to IEEE 754 in every bit: HVX has no floating point before v68.

A number is sign · significand · 2^exponent with sign 0 or −1, and 2²³ ≤ significand ≤ 2²⁴ or 0. Each operation rounds
to the nearest, ties to even, as the float32 instruction does. Signed overflow is undefined in LLVM, so no intermediate
value leaves 31 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Float", "VectorFloat"]


@dataclass(frozen=True)
class Float:
    """Variables of TVM: one float32 number in each lane."""

    sign: Any
    significand: Any
    exponent: Any


class VectorFloat:
    """Builds expressions on `lanes` numbers at once; every intermediate value is bound to a variable of its own."""

    def __init__(self, tirx: Any, lanes: int) -> None:
        self.tirx, self.lanes = tirx, lanes
        self.dtype = "int32" if lanes == 1 else f"int32x{lanes}"
        self._bound: list[tuple[Any, Any]] = []

    def number(self, value: int) -> Any:
        """A constant in every lane."""
        return self.tirx.const(value, self.dtype)

    def bind(self, value: Any) -> Any:
        """A variable that holds the value: expressions are trees, and would be computed again at every use.

        TVM's analyzer puts pure definitions back in place of their variables, in time exponential in their depth. It
        takes this call for an impure one; LLVM folds a maximum with the lowest number to nothing.
        """
        lowest = self.number(-(2**31))
        variable = self.tirx.Var(f"v{len(self._bound)}", self.dtype)
        self._bound.append((variable, self.tirx.call_llvm_intrin(self.dtype, "llvm.smax", value, lowest)))
        return variable

    def close(self, result: Any) -> Any:
        """The expression with the definitions of its variables around it."""
        for variable, value in reversed(self._bound):
            result = self.tirx.Let(variable, value, result)
        return result

    def from_bits(self, bits: Any) -> Float:
        """The float32 numbers that have these bits; what is smaller than 2⁻¹²⁶ counts as zero."""
        n, tirx = self.number, self.tirx
        raw = self.bind((bits >> n(23)) & n(255))
        mantissa = (bits & n(0x7FFFFF)) | n(0x800000)
        return Float(
            self.bind(bits >> n(31)), self.bind(tirx.Select(raw > n(0), mantissa, n(0))), self.bind(raw - n(150))
        )

    def from_integer(self, value: Any) -> Float:
        """float32(value)"""
        n, tirx = self.number, self.tirx
        # −2³¹ has no counterpart; −2³¹ + 1 rounds to the same float32.
        value = self.bind(tirx.max(value, n(-(2**31) + 1)))
        sign = self.bind(value >> n(31))
        size = self.bind((value ^ sign) - sign)
        zeros = self.bind(tirx.call_llvm_pure_intrin(self.dtype, "llvm.ctlz", size | n(1), tirx.const(True, "bool")))
        left = self.bind(size << (zeros - n(1)))  # 31 significant bits
        high = self.bind(left >> n(7))
        rounded = self.bind(high + (((left & n(127)) + (high & n(1)) + n(63)) >> n(7)))
        return Float(sign, rounded, self.bind(n(8) - zeros))

    def multiply(self, a: Float, b: Float) -> Float:
        """float32(a · b), for a result that is no subnormal number or does not matter then."""
        n, bind = self.number, self.bind
        # Four products of 12 bits make one of 48, of which the low 17 bits only matter as being zero or not.
        a1, a0 = bind(a.significand >> n(12)), bind(a.significand & n(4095))
        b1, b0 = bind(b.significand >> n(12)), bind(b.significand & n(4095))
        middle = bind(a1 * b0 + a0 * b1)
        low = bind(a0 * b0 + ((middle & n(4095)) << n(12)))
        high = a1 * b1 + (middle >> n(12)) + (low >> n(24))
        rest = ((low & n(0x1FFFF)) + n(0x1FFFF)) >> n(17)
        product = bind((high << n(7)) | ((low & n(0xFFFFFF)) >> n(17)) | rest)
        cut = bind((product >> n(30)) + n(6))
        exponent = bind(a.exponent + b.exponent + cut + n(17))
        return Float(bind(a.sign ^ b.sign), self._shifted(product, cut), exponent)

    def nearest(self, x: Float) -> Any:
        """rint(x) where |x| < 2²²; anything of at least that size where it is not."""
        n, tirx = self.number, self.tirx
        cut = self.bind(tirx.max(tirx.min(n(0) - x.exponent, n(26)), n(1)))
        return self.bind((self._shifted(x.significand, cut) ^ x.sign) - x.sign)

    def _shifted(self, value: Any, count: Any) -> Any:
        """value · 2^−count to the nearest integer, ties to even; 0 ≤ value, 1 ≤ count."""
        n = self.number
        odd = (value >> count) & n(1)
        return self.bind((value + ((n(1) << (count - n(1))) - n(1)) + odd) >> count)

"""float32 arithmetic on levels and sums, in the instructions that a machine does soonest."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....targets.target import Target

__all__ = ["MIDDLE", "MIDDLE_BITS", "Arithmetic"]

MIDDLE = 1.5 * 2**23  # float32 around it holds the integers up to 2²² away, and nothing between them
MIDDLE_BITS = int(np.float32(MIDDLE).view(np.int32))


class Arithmetic:
    """Expressions for one target, of numbers or of vectors of them; `tirx`: TVM's module of expressions."""

    tirx: Any
    target: Target

    def rounded(self, value: Any) -> Any:
        """A float32 of levels, rounded to the nearest integer, ties to even, in one instruction or two short ones."""
        if self.sums_convert:
            return self.counted(value) - MIDDLE_BITS
        return self.tirx.call_llvm_pure_intrin("int32", "llvm.lrint", value)

    def whole(self, value: Any) -> Any:
        """A float32 of levels, rounded to the nearest integer, ties to even, and still a float32."""
        if self.sums_convert:
            return self.tirx.reinterpret("float32", self.counted(value)) - self.tirx.const(MIDDLE, "float32")
        return self.tirx.nearbyint(value)

    def number(self, levels: Any, zero: Any) -> Any:
        """`float32(x − z)` of levels of 8 bits."""
        if self.sums_convert:
            bits = self.cast(levels, "int32") + self.tirx.const(MIDDLE_BITS, "int32")
            return self.tirx.reinterpret("float32", bits - zero) - self.tirx.const(MIDDLE, "float32")
        return self.cast(self.cast(levels, "int32") - zero, "float32")

    def quotient(self, value: Any, divisor: Any, reciprocal: Any) -> Any:
        """A float32 over another one, correctly rounded where the quotient is of use as a level; division takes longer.

        With a correctly rounded reciprocal, and a quotient within one unit in the last place (after the first step), a
        fused step makes it the right one: Markstein, Computation of elementary functions on the IBM RISC System/6000
        processor (1990). Divisors so small or large that remainders underflow have no reciprocal (None).
        """
        fuses = self.target.triple.startswith("aarch64") or "fma" in self.target.features
        if reciprocal is None or not fuses:
            return self.tirx.div(value, divisor)

        def fused(a: Any, b: Any, c: Any) -> Any:
            return self.tirx.call_llvm_pure_intrin("float32", "llvm.fma", a, b, c)

        found = value * reciprocal
        for _ in range(2):
            found = fused(fused(-found, divisor, value), reciprocal, found)
        return found

    def cast(self, value: Any, dtype: str) -> Any:
        """A number, or each of a vector, in another type."""
        value = self.tirx.convert(value)
        lanes = int(value.ty.dtype.lanes)
        return value.astype(dtype if lanes == 1 else f"{dtype}x{lanes}")

    @property
    def sums_convert(self) -> bool:
        """Adding `MIDDLE` and reading the bits takes less time than converting between float32 and int32."""
        return self.target.triple.startswith("aarch64")

    def counted(self, value: Any, middle: Any = None) -> Any:
        """`MIDDLE_BITS` plus a float32 below 2²² rounded to the nearest integer, ties to even.

        middle: instead of `MIDDLE`, which then adds the difference too; an even one.
        """
        # The fence keeps LLVM from fusing the sum with a product before it, which would round once instead of twice.
        fenced = self.tirx.call_llvm_pure_intrin("float32", "llvm.arithmetic.fence", value)
        return self.tirx.reinterpret(
            "int32", fenced + (self.tirx.const(MIDDLE, "float32") if middle is None else middle)
        )

    def limited(self, value: Any, low: Any, high: Any) -> Any:
        """A float32 between bounds."""
        if not self.sums_convert:
            return self.tirx.max(self.tirx.min(value, high), low)
        # LLVM keeps a comparison and a choice apart; these are one instruction each.
        least = self.tirx.call_llvm_pure_intrin("float32", "llvm.minnum", value, high)
        return self.tirx.call_llvm_pure_intrin("float32", "llvm.maxnum", least, low)

"""exp and erf on float32 vectors: what LLVM would call the C library for, one element at a time.

exp(x) = 2ⁿ·e^r with n = rint(x / ln 2) and a polynomial of r in [−ln 2 / 2, ln 2 / 2]. erf(x) = x·p(x²) where |x| < 1,
else ±(1 − e^q(|x|)). The polynomials are Chebyshev fits; against float64 exp is right to 1.1e-7 of its value, erf to
2e-7. NaN stays NaN, overflow is infinite, underflow gradual.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

__all__ = ["register"]

_EXP = (1.0, 1.0, 0.5, 0.16666415, 0.041666217, 0.0083751287, 0.0013948581)
_LN2 = (0.693359375, -2.12194440e-4)  # in two parts, the first of which is exact in products with n
_RANGE = (-104.0, 89.0)  # outside of it exp is 0 or infinite
_ERF_SMALL = (1.1283791, -0.37612626, 0.11283597, -0.026854329, 0.0051893122, -0.00080188555, 0.000078824974)
_ERF_LARGE = (
    -0.00066527969,
    -1.1262597,
    -0.63859242,
    -0.10372087,
    0.022808455,
    -0.003486998,
    0.000324819,
    -1.3745014e-5,
)
_ERFC_1 = 0.15729918  # what the second piece gives at 1, to the bit, so that erf(0) is 0
_ERF_ONE = 3.93  # erf rounds to 1 from here


def register() -> None:
    """Have TVM lower exp and erf of float32 to these for CPUs; once a process."""
    from tvm import ir, tirx

    ir.register_op_attr("tirx.erf", "TVectorizable", True)
    for name, function in (("tirx.exp", _exp), ("tirx.erf", _erf)):
        tirx.register_intrin_lowering(name, target="llvm", f=_rule(tirx, function), level=99)


def _rule(tirx: Any, function: Any) -> Any:
    def lower(call: Any) -> Any:
        if not str(call.ty.dtype).startswith("float32"):
            return call
        return _Vector(tirx, str(call.ty.dtype)).apply(function, call.args[0])

    return lower


class _Vector:
    """Arithmetic in one vector type."""

    def __init__(self, tirx: Any, dtype: str) -> None:
        self.tirx, self.dtype, self.integers = tirx, dtype, dtype.replace("float", "int")

    def apply(self, function: Any, value: Any) -> Any:
        """function(self, value), the value computed once."""
        variable = self.tirx.Var("x", self.dtype)
        return self.tirx.Let(variable, value, function(self, variable))

    def number(self, value: float) -> Any:
        return self.tirx.const(value, self.dtype)

    def integer(self, value: int) -> Any:
        return self.tirx.const(value, self.integers)

    def intrinsic(self, name: str, *arguments: Any) -> Any:
        return self.tirx.call_llvm_pure_intrin(self.dtype, f"llvm.{name}", *arguments)

    def bounded(self, value: Any, low: float, high: float) -> Any:
        """The value between two bounds, NaN where it is NaN."""
        return self.intrinsic("maximum", self.intrinsic("minimum", value, self.number(high)), self.number(low))

    def polynomial(self, value: Any, coefficients: Sequence[float]) -> Any:
        """Σ cₖ·valueᵏ by Horner's rule."""
        numbers = [self.number(c) for c in reversed(coefficients)]
        return reduce(lambda sum_, c: sum_ * value + c, numbers[1:], numbers[0])

    def power_of_two(self, exponent: Any) -> Any:
        shifted = (exponent + self.integer(127)) * self.integer(1 << 23)
        return self.tirx.reinterpret(self.dtype, shifted)


def _exp(v: _Vector, x: Any) -> Any:
    return v.apply(_bounded_exp, v.bounded(x, *_RANGE))


def _bounded_exp(v: _Vector, x: Any, *, normal: bool = False) -> Any:
    """normal: neither the result nor the power of two in it is too small or too large for one factor."""
    tirx = v.tirx
    n = tirx.Var("n", v.integers)
    rounded = tirx.call_llvm_pure_intrin(v.integers, "llvm.lrint", x * v.number(1.4426950408889634))
    whole = n.astype(v.dtype)
    rest = tirx.Var("r", v.dtype)
    reduced = x - whole * v.number(_LN2[0]) - whole * v.number(_LN2[1])
    half = tirx.shift_right(n, v.integer(1))
    powers = [n] if normal else [half, n - half]
    scaled = reduce(lambda product, power: product * v.power_of_two(power), powers, v.polynomial(rest, _EXP))
    return tirx.Let(n, rounded, tirx.Let(rest, reduced, scaled))


def _times_polynomial(v: _Vector, s: Any) -> Any:
    return s * v.apply(lambda v, u: v.polynomial(u, _ERF_SMALL), s * s)


def _erf(v: _Vector, x: Any) -> Any:
    """Both pieces are computed, each with its argument held at 1 beyond its end: where one varies, the other is erf(1).

    No Select: TVM's simplifier refuses those around values that are computed once.
    """
    size = v.tirx.Var("size", v.dtype)
    small = v.apply(
        lambda v, s: s * v.apply(lambda v, u: v.polynomial(u, _ERF_SMALL), s * s),
        v.intrinsic("minimum", size, v.number(1.0)),
    )
    exponent = v.apply(lambda v, s: v.polynomial(s, _ERF_LARGE), v.bounded(size, 1.0, _ERF_ONE))
    beyond = v.number(_ERFC_1) - v.apply(partial(_bounded_exp, normal=True), exponent)
    total = v.tirx.Let(size, v.intrinsic("fabs", x), small + beyond)
    return v.intrinsic("copysign", total, x)

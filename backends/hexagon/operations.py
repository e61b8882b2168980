"""Operations that TVM keeps opaque through scheduling and vectorising, and that become HVX instructions at the end.

levels(x, low, high, zero)   clip(rint(x), low, high) + zero of a float32 expression, without a float instruction
dot(a, b)                    Σ₄ a_k · b_k of four bytes in an int32: unsigned in a, signed in b
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ..tvm import environment
from .vector_float import Float, VectorFloat

__all__ = ["DOT", "LANES", "LEVELS", "register"]

DOT = "planish.hexagon.dot"
LEVELS = "planish.hexagon.levels"
LANES = 32  # int32 numbers in a vector of 128 bytes
_PURE = 1  # TVM's CallEffectKind


@cache
def register() -> None:
    """Register the operations with TVM; once a process."""
    tvm = environment.load()
    for name, lower in ((LEVELS, _levels), (DOT, _dot)):
        tvm.ir._ffi_api.RegisterOp(name, name)
        tvm.ir.register_op_attr(name, "TVectorizable", True)
        tvm.ir.register_op_attr(name, "TCallEffectKind", _PURE)
        tvm.tirx.op.register_intrin_lowering(name, "llvm", f=lower)


def _lanes(expression: Any) -> int:
    return int(str(expression.ty.dtype).partition("x")[2] or 1)


def _hvx(name: str, *arguments: Any) -> Any:
    tirx = environment.load().tirx
    return tirx.call_llvm_pure_intrin(f"int32x{LANES}", f"llvm.hexagon.V6.{name}.128B", *arguments)


def _levels(call: Any) -> Any:
    tirx = environment.load().tirx
    value, *bounds = call.args
    lanes, dtype = _lanes(value), str(call.ty.dtype).partition("x")[0]
    build = VectorFloat(tirx, max(lanes, LANES) if lanes > 1 else 1)
    low, high, zero = (_widened(build, bound) for bound in bounds)
    nearest = build.nearest(_float(build, value))
    level = build.bind(tirx.max(tirx.min(nearest, high), low) + zero)
    if build.lanes != LANES:
        return build.close(level.astype(dtype if lanes == 1 else f"{dtype}x{lanes}"))
    # LLVM would take the words one by one out of the vector.
    halves = _hvx("vpackeh", level, level)
    packed = tirx.reinterpret(f"{dtype}x{4 * LANES}", _hvx("vpackeb", halves, halves))
    return build.close(tirx.Shuffle([packed], list(range(lanes))))


def _float(build: VectorFloat, value: Any) -> Float:
    """A float32 expression in integers: products of integers and constants; anything else by its bits."""
    tirx = environment.load().tirx
    if isinstance(value, tirx.Mul):
        return build.multiply(_float(build, value.a), _float(build, value.b))
    if isinstance(value, tirx.Cast) and str(value.value.ty.dtype).startswith("int32"):
        return build.from_integer(_widened(build, value.value))
    lanes = _lanes(value)
    bits = tirx.reinterpret("int32" if lanes == 1 else f"int32x{lanes}", value)
    return build.from_bits(build.bind(_widened(build, bits)))


def _widened(build: VectorFloat, value: Any) -> Any:
    """A part of a vector as a whole one, its numbers repeated: LLVM takes narrower ones apart."""
    tirx, lanes = environment.load().tirx, _lanes(value)
    if lanes == build.lanes:
        return value
    return tirx.Shuffle([value] * (build.lanes // lanes), list(range(build.lanes)))


def _dot(call: Any) -> Any:
    tirx = environment.load().tirx
    a, b = call.args
    if _lanes(a) == LANES:
        return _hvx("vrmpybusv", a, b)
    dtype = str(call.ty.dtype)

    def byte(word: Any, k: int) -> Any:
        return word << tirx.const(24 - 8 * k, dtype)

    eight = tirx.const(24, dtype)
    terms = [((byte(a, k) >> eight) & tirx.const(255, dtype)) * (byte(b, k) >> eight) for k in range(4)]
    return terms[0] + terms[1] + terms[2] + terms[3]

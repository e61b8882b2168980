"""AVX512-BF16 in the place of the loops of a scheduled kernel that sum products of bfloat16.

An instruction adds two channels of a position times two channels of 16 columns to a vector of sums. They are called as
functions of LLVM's own language, which TVM has no type for such vectors in, and inlined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .tile_registers import TileRegisters

__all__ = ["PairRegisters", "with_instructions"]

_PRODUCT, _ZERO = "planish_dpbf16ps", "planish_zero_sums"
_INSTRUCTIONS = f"""
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)
define linkonce_odr hidden i32 @{_PRODUCT}(ptr %sums, ptr %pair, ptr %columns) alwaysinline nounwind {{
  %before = load <16 x float>, ptr %sums, align 4
  %word = load i32, ptr %pair, align 2
  %one = insertelement <16 x i32> poison, i32 %word, i32 0
  %all = shufflevector <16 x i32> %one, <16 x i32> poison, <16 x i32> zeroinitializer
  %left = bitcast <16 x i32> %all to <32 x bfloat>
  %right = load <32 x bfloat>, ptr %columns, align 2
  %after = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(
    <16 x float> %before, <32 x bfloat> %left, <32 x bfloat> %right)
  store <16 x float> %after, ptr %sums, align 4
  ret i32 0
}}
define linkonce_odr hidden i32 @{_ZERO}(ptr %sums) alwaysinline nounwind {{
  store <16 x float> zeroinitializer, ptr %sums, align 4
  ret i32 0
}}
"""


class PairRegisters(TileRegisters):
    """Puts vectors of sums, of positions by columns, in the place of the loops around a block that sums."""

    def _beginning(self) -> tuple[list[Any], list[Any]]:
        return [], []

    def _ends(self, sums: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        return [self._call(_ZERO, place) for place in sums], []

    def _step(
        self, pairs: Sequence[tuple[int, int]], sums: Sequence[Any], positions: Sequence[Any], weights: Sequence[Any]
    ) -> list[Any]:
        return [
            self._call(_PRODUCT, place, positions[i], weights[j]) for place, (i, j) in zip(sums, pairs, strict=True)
        ]

    def _call(self, name: str, *arguments: Any) -> Any:
        return self.tirx.Evaluate(self.tirx.call_extern("int32", name, *arguments))


def with_instructions(function: Any) -> Any:
    """A lowered function with what it calls, if it does."""
    if _PRODUCT not in str(function):
        return function
    from tvm import ir, tirx

    text = ir.StringImm(_INSTRUCTIONS)
    return function.with_body(tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", text, function.body))

"""Functions in LLVM's own language, for what TVM has no type or operator of; inlined where they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ADD_PAIRS", "ZERO_SUMS", "dot", "with_functions"]

ADD_PAIRS, ZERO_SUMS = "planish_add_pairs", "planish_zero_sums"
_DOT = "planish_dot_"
_UNROLLED = 4  # vectors of sums of a dot product: as many as the latency of a sum

# AVX512-BF16: two channels of a position, times two channels of 16 columns, are added to 16 sums in float32
_PAIRS = f"""
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)
define linkonce_odr hidden i32 @{ADD_PAIRS}(ptr %sums, ptr %pair, ptr %columns) alwaysinline nounwind {{
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
define linkonce_odr hidden i32 @{ZERO_SUMS}(ptr %sums) alwaysinline nounwind {{
  store <16 x float> zeroinitializer, ptr %sums, align 4
  ret i32 0
}}
"""


def dot(lanes: int) -> str:
    """The name of `float (pointer a, pointer b, int32 n)`, Σ a[i]·b[i] for i < n in vectors of so many lanes."""
    return f"{_DOT}{lanes}"


def _dot_text(lanes: int) -> str:
    """Whole steps of several vectors, then single vectors, then numbers; sums are joined in a tree."""
    vector = f"<{lanes} x float>"
    return f"""
declare float @llvm.vector.reduce.fadd.v{lanes}f32(float, {vector})
define linkonce_odr hidden float @{dot(lanes)}(ptr %a, ptr %b, i32 %n) alwaysinline nounwind {{
entry:
  %wides = and i32 %n, {-lanes * _UNROLLED}
  %vectors = and i32 %n, {-lanes}
  %any = icmp sgt i32 %wides, 0
  br i1 %any, label %wide, label %joined
{_wide_steps(lanes, vector)}
{_vector_steps(lanes, vector)}
across:
  %all = phi {vector} [ %total, %joined ], [ %next.narrow, %narrow ]
  %number = call reassoc float @llvm.vector.reduce.fadd.v{lanes}f32(float -0.0, {vector} %all)
  %any.single = icmp slt i32 %vectors, %n
  br i1 %any.single, label %single, label %end
{_SINGLE_STEPS}
end:
  %result = phi float [ %number, %across ], [ %next.single, %single ]
  ret float %result
}}
"""


def _wide_steps(lanes: int, vector: str) -> str:
    """Sums in `_UNROLLED` vectors, `%total` behind them."""
    each = range(_UNROLLED)
    phis = "\n".join(f"  %sum{k} = phi {vector} [ zeroinitializer, %entry ], [ %next{k}, %wide ]" for k in each)
    sums = "\n".join(f"  %next{k} = fadd contract {vector} %sum{k}, %productw{k}" for k in each)
    ends = "\n".join(f"  %last{k} = phi {vector} [ zeroinitializer, %entry ], [ %next{k}, %wide ]" for k in each)
    return f"""wide:
  %i = phi i32 [ 0, %entry ], [ %i.next, %wide ]
{phis}
{_products(lanes, vector, "w", _UNROLLED, "%i")}
{sums}
  %i.next = add i32 %i, {lanes * _UNROLLED}
  %more = icmp slt i32 %i.next, %wides
  br i1 %more, label %wide, label %joined
joined:
{ends}
  %half0 = fadd {vector} %last0, %last1
  %half1 = fadd {vector} %last2, %last3
  %total = fadd {vector} %half0, %half1"""


def _vector_steps(lanes: int, vector: str) -> str:
    """What is left of whole vectors, added to `%total`."""
    return f"""  %any.narrow = icmp slt i32 %wides, %vectors
  br i1 %any.narrow, label %narrow, label %across
narrow:
  %j = phi i32 [ %wides, %joined ], [ %j.next, %narrow ]
  %sum.narrow = phi {vector} [ %total, %joined ], [ %next.narrow, %narrow ]
{_products(lanes, vector, "n", 1, "%j")}
  %next.narrow = fadd contract {vector} %sum.narrow, %productn0
  %j.next = add i32 %j, {lanes}
  %more.narrow = icmp slt i32 %j.next, %vectors
  br i1 %more.narrow, label %narrow, label %across"""


def _products(lanes: int, vector: str, suffix: str, count: int, index: str) -> str:
    """`%product…` of so many vectors behind each other, from an index on."""
    lines = []
    for k in range(count):
        at = f"%at{suffix}{k}"
        lines.append(f"  {at} = add i32 {index}, {k * lanes}")
        for side in "ab":
            place = f"%place.{side}{suffix}{k}"
            lines.append(f"  {place} = getelementptr float, ptr %{side}, i32 {at}")
            lines.append(f"  %{side}{suffix}{k} = load {vector}, ptr {place}, align 4")
        lines.append(f"  %product{suffix}{k} = fmul contract {vector} %a{suffix}{k}, %b{suffix}{k}")
    return "\n".join(lines)


# What is left of numbers, added to `%number`.
_SINGLE_STEPS = """single:
  %k = phi i32 [ %vectors, %across ], [ %k.next, %single ]
  %sum.single = phi float [ %number, %across ], [ %next.single, %single ]
  %place.a = getelementptr float, ptr %a, i32 %k
  %place.b = getelementptr float, ptr %b, i32 %k
  %value.a = load float, ptr %place.a, align 4
  %value.b = load float, ptr %place.b, align 4
  %product = fmul contract float %value.a, %value.b
  %next.single = fadd contract float %sum.single, %product
  %k.next = add i32 %k, 1
  %more.single = icmp slt i32 %k.next, %n
  br i1 %more.single, label %single, label %end"""


def _texts() -> Mapping[str, str]:
    """What a call of each function needs."""
    return {ADD_PAIRS: _PAIRS} | {dot(lanes): _dot_text(lanes) for lanes in (4, 8, 16)}


def with_functions(function: Any) -> Any:
    """A lowered function with those that it calls, if any."""
    text = str(function)
    if "planish_" not in text:
        return function
    from tvm import ir, tirx

    found = ir.StringImm("".join(code for name, code in _texts().items() if f'"{name}"' in text))
    return function.with_body(tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", found, function.body))

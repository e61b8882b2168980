"""Tensor intrinsics of integer products, in forms that LLVM 22 accepts.

A dot product adds Σ activation · weight to each int32 lane; a matrix product adds [2, 8] · [2, 8]ᵀ to four of them.

TVM's own are not used: its vpdpbusd passes <16 x i32> where LLVM 21 and later want <64 x i8>, and importing them parses
every intrinsic of every CPU and GPU family.
"""

# mypy: disable-error-code="valid-type"
# TVMScript declares buffers by calls in annotations.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .intrinsics_arm64 import INTRINSICS, SDOT, SMLAL, SMMLA
from .intrinsics_dot import dot_product

__all__ = ["DOT_PRODUCT", "MATRIX_PRODUCT", "DotProduct", "register"]


@dataclass(frozen=True)
class DotProduct:
    """A tensor intrinsic: lanes of int32, products summed into each; the type it reads, where not the target's."""

    intrinsic: str
    lanes: int
    depth: int = 4
    activation: str | None = None


# integer instruction of a target -> tensor intrinsic
DOT_PRODUCT: Mapping[str, DotProduct] = {
    "vpdpbusd": DotProduct("planish.vpdpbusd", 16),
    "vpmaddwd": DotProduct("planish.vpmaddwd", 8, 2, "int16"),
    "sdot": DotProduct(SDOT, 4),
    "smmla": DotProduct(SDOT, 4),  # every core with i8mm has dotprod
    "smlal": DotProduct(SMLAL, 8, 8),
    "vrmpy": DotProduct("planish.vrmpy", 32),
}

# integer instruction of a target -> tensor intrinsic
MATRIX_PRODUCT: Mapping[str, str] = {"smmla": SMMLA}


def register() -> None:
    """Register the intrinsics with TVM; once a process."""
    from tvm.s_tir import TensorIntrin

    TensorIntrin.register("planish.vpdpbusd", *_vpdpbusd())
    TensorIntrin.register("planish.vpmaddwd", *_vpmaddwd())
    TensorIntrin.register("planish.vrmpy", *_vrmpy())
    for name, made in INTRINSICS.items():
        TensorIntrin.register(name, *made())


def _vpdpbusd() -> tuple[object, object]:
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        A: T.Buffer((4,), "uint8", offset_factor=1),
        B: T.Buffer((16, 4), "int8", offset_factor=1),
        C: T.Buffer((16,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:16], A[0:4], B[0:16, 0:4])
            T.writes(C[0:16])
            word = T.reinterpret(A.vload([0], "uint8x4"), dtype="int32")
            C[T.ramp(T.int32(0), 1, 16)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpbusd.512"),
                C.vload([0], dtype="int32x16"),
                T.reinterpret(T.broadcast(word, 16), dtype="int8x64"),
                B.vload([0, 0], dtype="int8x64"),
                dtype="int32x16",
            )

    return dot_product(16, 4, "uint8"), implementation


def _vpmaddwd() -> tuple[object, object]:
    """Pairs of 16-bit products: activations are stored so, weights widened as they are loaded; nothing saturates."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        A: T.Buffer((2,), "int16", offset_factor=1),
        B: T.Buffer((8, 2), "int8", offset_factor=1),
        C: T.Buffer((8,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:8], A[0:2], B[0:8, 0:2])
            T.writes(C[0:8])
            word = T.reinterpret(A.vload([0], "int16x2"), dtype="int32")
            C[T.ramp(T.int32(0), 1, 8)] = C.vload([0], dtype="int32x8") + T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.x86.avx2.pmadd.wd"),
                T.reinterpret(T.broadcast(word, 8), dtype="int16x16"),
                T.cast(B.vload([0, 0], dtype="int8x16"), "int16x16"),
                dtype="int32x8",
            )

    return dot_product(8, 2, "int16"), implementation


def _vrmpy() -> tuple[object, object]:
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        A: T.Buffer((4,), "uint8", offset_factor=1),
        B: T.Buffer((32, 4), "int8", offset_factor=1),
        C: T.Buffer((32,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:32], A[0:4], B[0:32, 0:4])
            T.writes(C[0:32])
            word = T.reinterpret(A.vload([0], "uint8x4"), dtype="int32")
            C[T.ramp(T.int32(0), 1, 32)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.hexagon.V6.vrmpybusv.acc.128B"),
                C.vload([0], dtype="int32x32"),
                T.broadcast(word, 32),
                T.reinterpret(B.vload([0, 0], dtype="int8x128"), dtype="int32x32"),
                dtype="int32x32",
            )

    return dot_product(32, 4, "uint8"), implementation

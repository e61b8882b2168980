"""Tensor intrinsics that TVM lacks, or has in a form its LLVM rejects: names of 4-deep dot products into int32 lanes."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DOT_PRODUCT", "register"]

# integer instruction of a target -> (TVM's tensor intrinsic, lanes of int32)
DOT_PRODUCT: Mapping[str, tuple[str, int]] = {
    "vpdpbusd": ("dot_16x4_vnni", 16),
    "sdot": ("dot_4x4_i8i8s32_sdot", 4),
    "smmla": ("dot_4x4_i8i8s32_sdot", 4),  # every core with i8mm has dotprod
}


def register() -> None:
    """Replace `dot_16x4_vnni`: since LLVM 21 vpdpbusd.512 takes <64 x i8>, TVM 0.27 passes <16 x i32>."""
    from tvm.s_tir import TensorIntrin
    from tvm.s_tir.tensor_intrin.x86 import dot_product_16x4_u8i8i32_desc as description
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
            A_i32 = T.reinterpret(A.vload([0], "uint8x4"), dtype="int32")
            C[T.ramp(T.int32(0), 1, 16)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpbusd.512"),
                C.vload([0], dtype="int32x16"),
                T.reinterpret(T.broadcast(A_i32, 16), dtype="int8x64"),
                B.vload([0, 0], dtype="int8x64"),
                dtype="int32x16",
            )

    TensorIntrin.register("dot_16x4_vnni", description, implementation, override=True)

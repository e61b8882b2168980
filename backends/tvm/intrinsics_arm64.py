"""Tensor intrinsics of arm64: dot products, matrix products, and what puts bytes and sums in order around them."""

# mypy: disable-error-code="valid-type"
# TVMScript declares buffers by calls in annotations.

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .intrinsics_dot import dot_product

__all__ = ["DEEP_SDOT", "INTRINSICS", "MATRIX_ROWS", "QUADS", "SDOT", "SDOT_LANES", "SMLAL", "SMMLA"]

SDOT = "planish.sdot"
# channels -> the same of several groups of four, from one load of activations
DEEP_SDOT: Mapping[int, str] = {16: "planish.sdot16", 8: "planish.sdot8"}
SDOT_LANES = "planish.sdot_lanes"  # with activations of its own for each lane
SMLAL = "planish.smlal"
SMMLA = "planish.smmla"
QUADS = "planish.quads"  # four vectors of bytes to the four bytes of each lane behind each other
MATRIX_ROWS = "planish.matrix_rows"  # two matrix products beside each other to two rows of four


def _sdot() -> tuple[object, object]:
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        A: T.Buffer((4,), "int8", offset_factor=1),
        B: T.Buffer((4, 4), "int8", offset_factor=1),
        C: T.Buffer((4,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:4], A[0:4], B[0:4, 0:4])
            T.writes(C[0:4])
            word = T.reinterpret(A.vload([0], "int8x4"), dtype="int32")
            C[T.ramp(T.int32(0), 1, 4)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.aarch64.neon.sdot"),
                C.vload([0], dtype="int32x4"),
                T.reinterpret(T.broadcast(word, 4), dtype="int8x16"),
                B.vload([0, 0], dtype="int8x16"),
                dtype="int32x4",
            )

    return dot_product(4, 4, "int8"), implementation


def _deep_sdot(depth: int) -> tuple[object, object]:
    """`B` has the weights of one SDOT behind those of another, which takes its activations from a lane of a vector."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(
        A: T.Buffer((depth,), "int8", offset_factor=1),
        B: T.Buffer((depth // 4, 4, 4), "int8", offset_factor=1),
        C: T.Buffer((4,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:4], A[0:depth], B[0 : depth // 4, 0:4, 0:4])
            T.writes(C[0:4])
            for i, k in T.grid(4, depth):
                with T.sblock("update"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(B[vk // 4, vi, vk % 4], "int32")

    def products(sums: Any, activations: Any, weights: Any) -> Any:
        identifier = T.llvm_lookup_intrinsic_id("llvm.aarch64.neon.sdot")
        words = T.reinterpret(activations, dtype=f"int32x{depth // 4}")
        for k in range(depth // 4):
            group = T.reinterpret(T.Shuffle([words] * (16 // depth), [k] * 4), dtype="int8x16")
            sums = T.call_llvm_pure_intrin(identifier, sums, weights(k), group, dtype="int32x4")
        return sums

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        A: T.Buffer((depth,), "int8", offset_factor=1),
        B: T.Buffer((depth // 4, 4, 4), "int8", offset_factor=1),
        C: T.Buffer((4,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:4], A[0:depth], B[0 : depth // 4, 0:4, 0:4])
            T.writes(C[0:4])
            C[T.ramp(T.int32(0), 1, 4)] = products(
                C.vload([0], dtype="int32x4"),
                A.vload([0], dtype=f"int8x{depth}"),
                lambda k: B.vload([k, 0, 0], dtype="int8x16"),
            )

    return description, implementation


def _sdot_lanes() -> tuple[object, object]:
    """Each lane has four activations of its own."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(
        A: T.Buffer((16,), "int8", offset_factor=1),
        B: T.Buffer((4, 4), "int8", offset_factor=1),
        C: T.Buffer((4,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:4], A[0:16], B[0:4, 0:4])
            T.writes(C[0:4])
            for i, k in T.grid(4, 4):
                with T.sblock("update"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    C[vi] = C[vi] + T.cast(A[vi * 4 + vk], "int32") * T.cast(B[vi, vk], "int32")

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        A: T.Buffer((16,), "int8", offset_factor=1),
        B: T.Buffer((4, 4), "int8", offset_factor=1),
        C: T.Buffer((4,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:4], A[0:16], B[0:4, 0:4])
            T.writes(C[0:4])
            C[T.ramp(T.int32(0), 1, 4)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.aarch64.neon.sdot"),
                C.vload([0], dtype="int32x4"),
                A.vload([0], dtype="int8x16"),
                B.vload([0, 0], dtype="int8x16"),
                dtype="int32x4",
            )

    return description, implementation


def _quads() -> tuple[object, object]:
    from tvm.script import tirx as T

    order = [position * 16 + lane for lane in range(16) for position in range(4)]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(A: T.Buffer((4, 16), "int8", offset_factor=1), B: T.Buffer((64,), "int8", offset_factor=1)) -> None:
        with T.sblock("root"):
            T.reads(A[0:4, 0:16])
            T.writes(B[0:64])
            for i in range(64):
                with T.sblock("move"):
                    vi = T.axis.spatial(64, i)
                    B[vi] = A[vi % 4, vi // 4]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        A: T.Buffer((4, 16), "int8", offset_factor=1), B: T.Buffer((64,), "int8", offset_factor=1)
    ) -> None:
        with T.sblock("root"):
            T.reads(A[0:4, 0:16])
            T.writes(B[0:64])
            B[T.ramp(T.int32(0), 1, 64)] = T.Shuffle(
                [
                    A.vload([0, 0], dtype="int8x16"),
                    A.vload([1, 0], dtype="int8x16"),
                    A.vload([2, 0], dtype="int8x16"),
                    A.vload([3, 0], dtype="int8x16"),
                ],
                order,
            )

    return description, implementation


def _smlal() -> tuple[object, object]:
    """Eight activations times eight filters, 16-bit factors: `B` has the filters beside each other."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(
        A: T.Buffer((8,), "int8", offset_factor=1),
        B: T.Buffer((8, 8), "int8", offset_factor=1),
        C: T.Buffer((8,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:8], A[0:8], B[0:8, 0:8])
            T.writes(C[0:8])
            for i, k in T.grid(8, 8):
                with T.sblock("update"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(B[vk, vi], "int32")

    def products(sums: Any, activations: Any, rows: Any) -> Any:
        """The sums with the product of each activation and its row of filters added."""
        identifier = T.llvm_lookup_intrinsic_id("llvm.aarch64.neon.smull")
        for k in range(8):
            one, row = T.Shuffle([activations], [k] * 4), T.cast(rows(k), "int16x8")
            halves = [
                T.call_llvm_pure_intrin(identifier, T.Shuffle([row], half), one, dtype="int32x4")
                for half in ([0, 1, 2, 3], [4, 5, 6, 7])
            ]
            sums = sums + T.Shuffle(halves, list(range(8)))
        return sums

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        A: T.Buffer((8,), "int8", offset_factor=1),
        B: T.Buffer((8, 8), "int8", offset_factor=1),
        C: T.Buffer((8,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:8], A[0:8], B[0:8, 0:8])
            T.writes(C[0:8])
            C[T.ramp(T.int32(0), 1, 8)] = products(
                C.vload([0], dtype="int32x8"),
                T.cast(A.vload([0], dtype="int8x8"), "int16x8"),
                lambda k: B.vload([k, 0], dtype="int8x8"),
            )

    return description, implementation


def _smmla() -> tuple[object, object]:
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        stride = T.int32()
        A = T.match_buffer(a, (2, 8), "int8", offset_factor=1, strides=[stride, 1])
        B = T.match_buffer(b, (2, 8), "int8", offset_factor=1)
        C = T.match_buffer(c, (2, 2), "int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:2, 0:2], A[0:2, 0:8], B[0:2, 0:8])
            T.writes(C[0:2, 0:2])
            for i, j, k in T.grid(2, 2, 8):
                with T.sblock("update"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    C[vi, vj] = C[vi, vj] + T.cast(A[vi, vk], "int32") * T.cast(B[vj, vk], "int32")

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(a: T.handle, b: T.handle, c: T.handle) -> None:
        stride = T.int32()
        A = T.match_buffer(a, (2, 8), "int8", offset_factor=1, strides=[stride, 1])
        B = T.match_buffer(b, (2, 8), "int8", offset_factor=1)
        C = T.match_buffer(c, (2, 2), "int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:2, 0:2], A[0:2, 0:8], B[0:2, 0:8])
            T.writes(C[0:2, 0:2])
            C[0, T.ramp(T.int32(0), 1, 4)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.aarch64.neon.smmla"),
                C.vload([0, 0], dtype="int32x4"),
                T.Shuffle([A.vload([0, 0], dtype="int8x8"), A.vload([1, 0], dtype="int8x8")], list(range(16))),
                B.vload([0, 0], dtype="int8x16"),
                dtype="int32x4",
            )

    return description, implementation


def _matrix_rows() -> tuple[object, object]:
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(
        A: T.Buffer((2, 2, 2), "int32", offset_factor=1), B: T.Buffer((2, 2, 2), "int32", offset_factor=1)
    ) -> None:
        with T.sblock("root"):
            T.reads(A[0:2, 0:2, 0:2])
            T.writes(B[0:2, 0:2, 0:2])
            for i, p, j in T.grid(2, 2, 2):
                with T.sblock("move"):
                    vi, vp, vj = T.axis.remap("SSS", [i, p, j])
                    B[vi, vp, vj] = A[vp, vi, vj]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        A: T.Buffer((2, 2, 2), "int32", offset_factor=1), B: T.Buffer((2, 2, 2), "int32", offset_factor=1)
    ) -> None:
        with T.sblock("root"):
            T.reads(A[0:2, 0:2, 0:2])
            T.writes(B[0:2, 0:2, 0:2])
            B[0, 0, T.ramp(T.int32(0), 1, 4)] = T.Shuffle(
                [A.vload([0, 0, 0], dtype="int32x4"), A.vload([1, 0, 0], dtype="int32x4")], [0, 1, 4, 5]
            )
            B[1, 0, T.ramp(T.int32(0), 1, 4)] = T.Shuffle(
                [A.vload([0, 0, 0], dtype="int32x4"), A.vload([1, 0, 0], dtype="int32x4")], [2, 3, 6, 7]
            )

    return description, implementation


# name -> what makes its description and its implementation
INTRINSICS: Mapping[str, Callable[[], tuple[object, object]]] = {
    SDOT: _sdot,
    **{name: partial(_deep_sdot, depth) for depth, name in DEEP_SDOT.items()},
    SDOT_LANES: _sdot_lanes,
    QUADS: _quads,
    SMLAL: _smlal,
    SMMLA: _smmla,
    MATRIX_ROWS: _matrix_rows,
}

"""Tensor intrinsics of GPUs: `dp4a`, and the warp's matrix product of 16 × 16 × 16 on tensor cores.

TVM's own are not used: importing them parses every intrinsic of every GPU, which takes minutes on a small machine.
"""

# mypy: disable-error-code="valid-type"
# TVMScript declares buffers by calls in annotations.

from __future__ import annotations

from functools import cache

__all__ = ["DP4A", "FILL", "LOAD_A", "LOAD_B", "MULTIPLY", "SIDE", "STORE", "register"]

SIDE = 16  # rows, columns and depth of a fragment
DP4A = "planish.dp4a"
FILL = "planish.wmma_fill"
LOAD_A = "planish.wmma_load_a"
LOAD_B = "planish.wmma_load_b"
MULTIPLY = "planish.wmma_multiply"
STORE = "planish.wmma_store"


@cache
def register() -> None:
    """Register the intrinsics with TVM; once a process."""
    from tvm.s_tir import TensorIntrin

    TensorIntrin.register(DP4A, *_dp4a())
    TensorIntrin.register(FILL, *_fill())
    TensorIntrin.register(LOAD_A, *_load("wmma.matrix_a", "row_major"))
    TensorIntrin.register(LOAD_B, *_load("wmma.matrix_b", "col_major"))
    TensorIntrin.register(MULTIPLY, *_multiply())
    TensorIntrin.register(STORE, *_store())


def _dp4a() -> tuple[object, object]:
    """c += Σ₄ a · b, four bytes of each in one register."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(
        A: T.Buffer((4,), "int8", offset_factor=4, align=4, scope="local"),
        B: T.Buffer((4,), "int8", offset_factor=4, align=4),
        C: T.Buffer((1,), "int32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:1], A[0:4], B[0:4])
            T.writes(C[0:1])
            for k in range(4):
                with T.sblock("update"):
                    vk = T.axis.remap("R", [k])
                    C[0] = C[0] + T.cast(A[vk], "int32") * T.cast(B[vk], "int32")

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        A: T.Buffer((4,), "int8", offset_factor=4, align=4, scope="local"),
        B: T.Buffer((4,), "int8", offset_factor=4, align=4),
        C: T.Buffer((1,), "int32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:1], A[0:4], B[0:4])
            T.writes(C[0:1])
            C[0] = T.call_pure_extern(
                "__dp4a",
                T.reinterpret(A.vload([0], "int8x4"), dtype="int32"),
                T.reinterpret(B.vload([0], "int8x4"), dtype="int32"),
                C[0],
                dtype="int32",
            )

    return description, implementation


def _load(scope: str, order: str) -> tuple[object, object]:
    """A fragment of one warp from shared memory, where it lies as 16 rows of 16 bytes."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(
        A: T.Buffer((16, 16), "int8", offset_factor=16, align=64, scope="shared"),
        C: T.Buffer((16, 16), "int8", offset_factor=16, align=64, scope=scope),
    ) -> None:
        with T.sblock("root"):
            T.reads(A[0:16, 0:16])
            T.writes(C[0:16, 0:16])
            for i, j in T.grid(16, 16):
                with T.sblock("load"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = A[vi, vj]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(a: T.handle, c: T.handle) -> None:
        row, column = T.int32(), T.int32()
        A = T.match_buffer(a, (16, 16), "int8", offset_factor=16, align=64, scope="shared", strides=[row, column])
        C = T.match_buffer(c, (16, 16), "int8", offset_factor=16, align=64, scope=scope)
        with T.sblock("root"):
            T.reads(A[0:16, 0:16])
            T.writes(C[0:16, 0:16])
            T.evaluate(
                T.tvm_load_matrix_sync(
                    C.data,
                    16,
                    16,
                    16,
                    C.elem_offset // 256,
                    A.access_ptr("r", ptr_type="int8"),
                    row,
                    order,
                    dtype="void",
                )
            )

    return description, implementation


def _fill() -> tuple[object, object]:
    """A fragment of sums, all 0."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(C: T.Buffer((16, 16), "int32", offset_factor=16, align=64, scope="wmma.accumulator")) -> None:
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:16, 0:16])
            for i, j in T.grid(16, 16):
                with T.sblock("init"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = 0

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        C: T.Buffer((16, 16), "int32", offset_factor=16, align=64, scope="wmma.accumulator"),
    ) -> None:
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:16, 0:16])
            T.evaluate(T.tvm_fill_fragment(C.data, 16, 16, 16, C.elem_offset // 256, T.float32(0), dtype="void"))

    return description, implementation


def _multiply() -> tuple[object, object]:
    """c[i, j] += Σ a[i, k] · b[j, k] by one warp."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(
        A: T.Buffer((16, 16), "int8", offset_factor=16, align=64, scope="wmma.matrix_a"),
        B: T.Buffer((16, 16), "int8", offset_factor=16, align=64, scope="wmma.matrix_b"),
        C: T.Buffer((16, 16), "int32", offset_factor=16, align=64, scope="wmma.accumulator"),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:16, 0:16], A[0:16, 0:16], B[0:16, 0:16])
            T.writes(C[0:16, 0:16])
            for i, j, k in T.grid(16, 16, 16):
                with T.sblock("update"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    C[vi, vj] = C[vi, vj] + T.cast(A[vi, vk], "int32") * T.cast(B[vj, vk], "int32")

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        A: T.Buffer((16, 16), "int8", offset_factor=16, align=64, scope="wmma.matrix_a"),
        B: T.Buffer((16, 16), "int8", offset_factor=16, align=64, scope="wmma.matrix_b"),
        C: T.Buffer((16, 16), "int32", offset_factor=16, align=64, scope="wmma.accumulator"),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:16, 0:16], A[0:16, 0:16], B[0:16, 0:16])
            T.writes(C[0:16, 0:16])
            T.evaluate(
                T.tvm_mma_sync(
                    C.data,
                    C.elem_offset // 256,
                    A.data,
                    A.elem_offset // 256,
                    B.data,
                    B.elem_offset // 256,
                    C.data,
                    C.elem_offset // 256,
                    dtype="void",
                )
            )

    return description, implementation


def _store() -> tuple[object, object]:
    """Sums of one warp to shared memory, 16 rows of 16."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(
        A: T.Buffer((16, 16), "int32", offset_factor=16, align=64, scope="wmma.accumulator"),
        C: T.Buffer((16, 16), "int32", offset_factor=16, align=64, scope="shared"),
    ) -> None:
        with T.sblock("root"):
            T.reads(A[0:16, 0:16])
            T.writes(C[0:16, 0:16])
            for i, j in T.grid(16, 16):
                with T.sblock("store"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = A[vi, vj]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(a: T.handle, c: T.handle) -> None:
        row, column = T.int32(), T.int32()
        A = T.match_buffer(a, (16, 16), "int32", offset_factor=16, align=64, scope="wmma.accumulator")
        C = T.match_buffer(c, (16, 16), "int32", offset_factor=16, align=64, scope="shared", strides=[row, column])
        with T.sblock("root"):
            T.reads(A[0:16, 0:16])
            T.writes(C[0:16, 0:16])
            T.evaluate(
                T.tvm_store_matrix_sync(
                    A.data,
                    16,
                    16,
                    16,
                    A.elem_offset // 256,
                    C.access_ptr("w", ptr_type="int32"),
                    row,
                    "row_major",
                    dtype="void",
                )
            )

    return description, implementation

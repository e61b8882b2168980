"""What every dot-product instruction computes, for TVM to find in a kernel: the same on all machines but for sizes."""

# mypy: disable-error-code="valid-type"
# TVMScript declares buffers by calls in annotations.

from __future__ import annotations

__all__ = ["dot_product"]


def dot_product(lanes: int, depth: int, activation: str) -> object:
    """`C[i] += Σₖ A[k]·B[i, k]`: `depth` activations, int8 weights of `lanes` filters, int32 sums."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(
        A: T.Buffer((depth,), activation, offset_factor=1),
        B: T.Buffer((lanes, depth), "int8", offset_factor=1),
        C: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:depth], B[0:lanes, 0:depth])
            T.writes(C[0:lanes])
            for i, k in T.grid(lanes, depth):
                with T.sblock("update"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(B[vi, vk], "int32")

    return description

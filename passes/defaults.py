"""Named pipelines, each a plain function that returns its passes in order."""

from __future__ import annotations

from onnx_ir.passes import PassBase

from .registry import parse

__all__ = ["exact"]

_PREPARE = "inline-functions,lift-constants,lift-subgraph-initializers"
_SIMPLIFY = "fold-shapes,fold-constants,remove-no-ops,fold-bn,fuse-gemm,fold-affine,fuse-pad,fuse-clip,merge-slices,merge-reshapes,merge-transposes,merge-reductions,drop-zero-state,eliminate-common-subexpressions,remove-unused"
_FINISH = "remove-unused,fix-outputs,fix-names"


def exact() -> list[PassBase]:
    """`-O1`: rewrites that leave every output as it was, to a fixed point."""
    return parse(f"{_PREPARE},fixpoint{{steps=8}}({_SIMPLIFY}),{_FINISH}")

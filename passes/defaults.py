"""Named pipelines, each a plain function that returns its passes in order."""

from __future__ import annotations

from onnx_ir.passes import PassBase

from ..targets.target import Target
from .registry import parse

__all__ = ["exact", "for_level", "int8", "mixed", "pruned"]

_PREPARE = "inline-functions,lift-constants,lift-subgraph-initializers,deduplicate-initializers"
_CONSTANTS = "fold-shapes,fold-constants,fold-weights,remove-no-ops"
_WEIGHTS = "fold-bn,fuse-gemm,fuse-layer-norm,fold-affine,fold-affine-before,fuse-pad,merge-scales"
_ACTIVATIONS = "fuse-clip,fuse-activation"
_PIECES = "merge-slices,split-slices,fuse-crop,merge-concats,narrow-shape"
_MOVEMENT = "merge-reshapes,merge-transposes,merge-reductions,drop-zero-state"
_SHARING = "deduplicate-initializers{limit=4096},eliminate-common-subexpressions,remove-unused"
_SIMPLIFY = ",".join([_CONSTANTS, _WEIGHTS, _ACTIVATIONS, _PIECES, _MOVEMENT, _SHARING])
_SIMPLER = "unroll-lstm,decompose-instance-norm"  # what an NPU computes in pieces
_LOW_BITS = "keep-float,prefer-faster,quantize,remove-unused"
_FINISH = "remove-unused,fix-names"


def exact() -> list[PassBase]:
    """`-O1`: rewrites that leave every output as it was, to a fixed point."""
    return parse(f"{_PREPARE},fixpoint{{steps=8}}({_SIMPLIFY}),{_FINISH}")


def for_level(level: int, target: Target, *, prune: bool = False, mix: bool = False) -> list[PassBase]:
    """`-O0` nothing, `-O1` exact clean-up, `-O2` and `-O3` clean-up and data-free int8 for the target.

    prune: remove channels before the int8, as much as the context's budgets ask for; mix: 4 bits instead of 8 in the
    layers that bear it, as far as a budget of size asks.
    """
    smaller = pruned() if prune else []
    if level == 0:
        return smaller
    integers = mixed() if mix else int8(target)
    return exact() + smaller if level == 1 else exact() + smaller + integers + parse("predict-fidelity")


def pruned() -> list[PassBase]:
    """Channels removed within the user's budgets, refitted on inputs made for the model."""
    return parse(f"synthesize-inputs{{samples=128}},prune,{_FINISH}")


def int8(target: Target | None = None) -> list[PassBase]:
    """Data-free int8 in the target's own types: inputs made, ranges observed, what 8 bits would hurt left out, Q/DQ.

    Where the target has 16-bit activations too, a model that 8 bits would hurt gets these before any of it stays float.
    """
    if target is not None and "int16-activations" in target.features:
        return parse(f"synthesize-inputs,{_SIMPLER},activation-ranges,widen-activations,{_LOW_BITS}")
    return parse(f"synthesize-inputs,activation-ranges,{_LOW_BITS}")


def mixed() -> list[PassBase]:
    """Data-free int8 with 4-bit weights where a budget of size asks for them."""
    return parse("synthesize-inputs,activation-ranges,keep-float,prefer-faster,mix-precision,quantize,remove-unused,pack-weights")

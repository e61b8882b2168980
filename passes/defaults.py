"""Named pipelines, each a plain function that returns its passes in order."""

from __future__ import annotations

from onnx_ir.passes import PassBase

from ..targets.target import Target
from .registry import parse

__all__ = ["exact", "few_bits", "for_level", "int8", "mixed", "pruned", "sixteen_bits"]

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


def exact(*, widen: bool = False) -> list[PassBase]:
    """`-O1`: rewrites that leave every output as it was, to a fixed point.

    widen: first floats of 16 bits in float32, and operators of ONNX Runtime's integer format as Q/DQ.
    """
    first = f"{_PREPARE},widen-floats,expand-quantized" if widen else _PREPARE
    return parse(f"{first},fixpoint{{steps=8}}({_SIMPLIFY}),{_FINISH}")


def for_level(
    level: int, target: Target, *, prune: bool = False, mix: bool = False, precision: str = "int8"
) -> list[PassBase]:
    """`-O0` nothing, `-O1` exact clean-up, `-O2` and `-O3` clean-up and data-free int8 for the target.

    prune: remove channels before the int8, as much as the context's budgets ask for; mix: 4 bits instead of 8 in the
    layers that bear it, as far as a budget of size asks; precision: `float32`, `bfloat16` or `float16` instead of int8.
    """
    smaller = pruned() if prune else []
    if level == 0:
        return smaller
    if level == 1 or precision == "float32":
        return exact(widen=level > 1) + smaller
    if precision != "int8":
        return exact() + smaller + sixteen_bits(precision)
    integers = mixed() if mix else int8(target)
    return exact(widen=True) + smaller + integers + parse("predict-fidelity")


def pruned() -> list[PassBase]:
    """Channels removed within the user's budgets, refitted on inputs made for the model."""
    return parse(f"synthesize-inputs{{samples=128}},prune,{_FINISH}")


def int8(target: Target | None = None) -> list[PassBase]:
    """Data-free int8 in the target's own types: inputs made, ranges observed, what 8 bits would hurt left out, Q/DQ.

    Where the target has 16-bit activations too, a model that 8 bits would hurt gets these before any of it stays float.
    """
    if target is not None and "int16-activations" in target.features:
        return parse(f"synthesize-inputs,{_SIMPLER},activation-ranges,widen-activations,{_LOW_BITS}")
    native = target is not None and "ConvTranspose" in target.integer_ops
    return parse(f"{'' if native else 'convolve-transposed,'}synthesize-inputs,activation-ranges,{_LOW_BITS}")


def sixteen_bits(to: str) -> list[PassBase]:
    """Floats of 16 bits, where numbers fit them: those of `bfloat16` go as far as float32, so none is observed."""
    observed = "" if to == "bfloat16" else "synthesize-inputs,activation-ranges,"
    return parse(f"{observed}convert-float{{to={to}}},{_FINISH}")


def mixed() -> list[PassBase]:
    """Data-free int8 with 4-bit weights where a budget of size asks for them."""
    return parse(
        "synthesize-inputs,activation-ranges,keep-float,prefer-faster,mix-precision,quantize,remove-unused,pack-weights"
    )


def few_bits(weights: str = "int4", activations: str = "int8") -> list[PassBase]:
    """Weights of 4 bits or fewer, simulated on int8 kernels, in seconds; activations too, with training in minutes.

    weights: `int4`, `int3`, `int2` or `ternary`; activations: `int8`, `int6`, `int4` or `int3`. Fewer than 8 bits of
    activations need PyTorch, and are best where `-O1` found BatchNorm statistics.
    """
    if activations == "int8":
        inputs, steps = (
            "synthesize-inputs,activation-ranges,vary-inputs{samples=96}",
            f"round-weights{{weights={weights}}}",
        )
        return parse(f"{inputs},{steps},quantize{{weights={weights}}},remove-unused")
    inputs = "synthesize-inputs{samples=512},distill-inputs{steps=80 batch=64},activation-ranges"
    rounding = f"reconstruct{{weights={weights} activations={activations} steps=1}}"
    training = "recover{steps=500 batch=64}"
    return parse(f"{inputs},{rounding},quantize{{weights={weights}}},{training},remove-unused")

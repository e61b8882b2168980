"""Clean-up: rewrites that leave every output as it was; names to modules, loaded when used."""

from collections.abc import Callable

from . import libraries

# pass name -> "module:Class" in this package
PASSES: dict[str, str] = {
    "convolve-transposed": "convolve_transposed:ConvolveTransposed",
    "decompose-instance-norm": "decompose_instance_norm:DecomposeInstanceNorm",
    "deduplicate-initializers": "deduplicate_initializers:DeduplicateInitializers",
    "drop-zero-state": "drop_zero_state:DropZeroState",
    "expand-quantized": "expand_quantized:ExpandQuantized",
    "fold-affine": "fold_affine:FoldAffine",
    "fold-affine-before": "fold_affine_before:FoldAffineBefore",
    "fold-bn": "fold_bn:FoldBatchNorm",
    "fold-shapes": "fold_shapes:FoldShapes",
    "fold-weights": "fold_weights:FoldWeights",
    "fuse-activation": "fuse_activation:FuseActivation",
    "fuse-clip": "fuse_clip:FuseClip",
    "fuse-crop": "fuse_crop:FuseCrop",
    "fuse-gemm": "fuse_gemm:FuseGemm",
    "fuse-layer-norm": "fuse_layer_norm:FuseLayerNorm",
    "fuse-pad": "fuse_pad:FusePad",
    "merge-concats": "merge_concats:MergeConcats",
    "merge-reductions": "merge_reductions:MergeReductions",
    "merge-reshapes": "merge_reshapes:MergeReshapes",
    "merge-scales": "merge_scales:MergeScales",
    "merge-slices": "merge_slices:MergeSlices",
    "merge-transposes": "merge_transposes:MergeTransposes",
    "narrow-shape": "narrow_shape:NarrowShape",
    "remove-no-ops": "remove_no_ops:RemoveNoOps",
    "split-slices": "split_slices:SplitSlices",
    "unroll-lstm": "unroll_lstm:UnrollLstm",
    "widen-floats": "widen_floats:WidenFloats",
}

# pass name -> factory of the onnx_ir pass or onnxscript rule set that does it
FOREIGN: dict[str, Callable[[], object]] = {
    "eliminate-common-subexpressions": libraries.common_subexpressions,
    "fix-names": libraries.name_fix,
    "fold-constants": libraries.constant_folding,
    "inline-functions": libraries.inline_functions,
    "lift-constants": libraries.lift_constants,
    "lift-subgraph-initializers": libraries.lift_subgraph_initializers,
    "remove-unused": libraries.remove_unused,
}

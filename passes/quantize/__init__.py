"""Data-free quantization; names to modules, loaded when used."""

# pass name -> "module:Class" in this package
PASSES: dict[str, str] = {
    "absorb-bias": "absorb_bias:AbsorbBias",
    "activation-ranges": "activation_ranges:ActivationRanges",
    "cluster-weights": "cluster_weights:ClusterWeights",
    "compress-layers": "compress_layers:CompressLayers",
    "convert-float": "convert_float:ConvertFloat",
    "equalize": "equalize:Equalize",
    "keep-float": "keep_float:KeepFloat",
    "ldnq": "ldnq:Ldnq",
    "mix-precision": "mix_precision:MixPrecision",
    "pack-weights": "pack_weights:PackWeights",
    "predict-fidelity": "predict_fidelity:PredictFidelity",
    "prefer-faster": "prefer_faster:PreferFaster",
    "quantize": "quantize:Quantize",
    "quantize-weights": "quantize_weights:QuantizeWeights",
    "reconstruct": "reconstruct:Reconstruct",
    "relax-relu6": "relax_relu6:RelaxRelu6",
    "round-weights": "round_weights:RoundWeights",
    "smooth-activations": "smooth_activations:SmoothActivations",
    "split-outliers": "split_outliers:SplitOutliers",
    "widen-activations": "widen_activations:WidenActivations",
}

"""Data-free quantization; names to modules, loaded when used."""

# pass name -> "module:Class" in this package
PASSES: dict[str, str] = {
    "activation-ranges": "activation_ranges:ActivationRanges",
    "equalize": "equalize:Equalize",
    "keep-float": "keep_float:KeepFloat",
    "quantize": "quantize:Quantize",
}

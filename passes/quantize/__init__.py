"""Data-free quantization; names to modules, loaded when used."""

# pass name -> "module:Class" in this package
PASSES: dict[str, str] = {}

"""Replacement of parts of a network by cheaper ones; names to modules, loaded when used."""

# pass name -> "module:Class" in this package
PASSES: dict[str, str] = {
    "approximate-activations": "approximate_activations:ApproximateActivations",
    "replace": "replace:Replace",
    "shorten-blocks": "shorten_blocks:ShortenBlocks",
}

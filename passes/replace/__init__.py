"""Replacement of parts of a network by cheaper ones; names to modules, loaded when used."""

# pass name -> "module:Class" in this package
PASSES: dict[str, str] = {
    "replace": "replace:Replace",
}

"""Structured and unstructured pruning; names to modules, loaded when used."""

# pass name -> "module:Class" in this package
PASSES: dict[str, str] = {
    "prune": "prune:Prune",
}

"""Structured and unstructured pruning; names to modules, loaded when used."""

# pass name -> "module:Class" in this package
PASSES: dict[str, str] = {
    "print-groups": "print_groups:PrintGroups",
    "prune": "prune:Prune",
}

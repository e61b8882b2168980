"""Structured and unstructured pruning; names to modules, loaded when used."""

# pass name -> "module:Class" in this package
PASSES: dict[str, str] = {
    "fold-channels": "fold_channels:FoldChannels",
    "print-groups": "print_groups:PrintGroups",
    "prune": "prune:Prune",
    "reestimate-bn": "reestimate_bn:ReestimateBatchNorm",
    "sparsify": "sparsify:Sparsify",
}

"""Recovery after lossy passes, and gates that stop a pipeline; names to modules, loaded when used."""

# pass name -> "module:Class" in this package
PASSES: dict[str, str] = {
    "check-bias": "check_bias:CheckBias",
    "check-decisions": "check_decisions:CheckDecisions",
    "check-similarity": "check_similarity:CheckSimilarity",
    "recover": "recover:Recover",
}

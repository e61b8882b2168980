"""Inputs and statistics without data; names to modules, loaded when used."""

# pass name -> "module:Class" in this package
PASSES: dict[str, str] = {
    "distill-inputs": "distill_inputs:DistillInputs",
    "synthesize-inputs": "synthesize_inputs:SynthesizeInputs",
    "vary-inputs": "vary_inputs:VaryInputs",
}

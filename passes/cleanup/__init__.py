"""Clean-up: rewrites that leave every output as it was; names to modules, loaded when used."""

# pass name -> "module:Class" in this package
PASSES: dict[str, str] = {}

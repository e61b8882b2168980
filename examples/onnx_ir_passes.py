"""Passes of planish and of onnx_ir in one pipeline, from either side.

python examples/onnx_ir_passes.py
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import planish
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import DeduplicateInitializersPass, RemoveUnusedNodesPass
from planish.integrations import onnx_ir_pass

DIGITS = Path(__file__).parent / "digits.onnx"


def main() -> None:
    # theirs outside: a planish pipeline is an onnx_ir pass
    model = ir.load(DIGITS)
    before = len(model.graph)
    Sequential(onnx_ir_pass("fold-bn,remove-no-ops"), RemoveUnusedNodesPass())(model)
    print(f"onnx_ir's Sequential: {before} → {len(model.graph)} nodes")

    # ours outside: an onnx_ir pass gets a record like any other
    model = ir.load(DIGITS)
    outcome = planish.PassManager(["fold-bn", DeduplicateInitializersPass()]).run(model)
    for record in outcome.records:
        print(f"planish's PassManager: {record.pass_name} changed {record.changed}, skipped {record.skipped or 0}")


if __name__ == "__main__":
    main()

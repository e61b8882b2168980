"""Where each node would run and in what type, told without compiling."""

from __future__ import annotations

import onnx_ir as ir

from ..ir.integer import IntegerOp, plan
from ..targets.target import Target
from .batch import fix_batch
from .compiled import Placement
from .registry import explainer

__all__ = ["planned"]


def planned(model: ir.Model, target: Target) -> list[Placement]:
    """What the target's back end foretells; else, from the integer plan alone, what ONNX Runtime does."""
    foretell = explainer(target.kind)
    if foretell is not None:
        try:
            return foretell(fix_batch(model)[0], target)
        except Exception:  # it cannot be compiled for the target, which is reported where that is tried
            pass
    return [
        Placement(
            step.node.name or "?",
            step.node.op_type,
            "int8" if isinstance(step, IntegerOp) else "float32",
            "ONNX Runtime",
            step.reason,
        )
        for step in plan(model)
    ]

"""What the kernels of a small model cost, by kind: the int8 and the float form of one layer are compared with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from ....targets.target import Target
from ..compile import prepared
from ..lower import lower
from .candidates import Candidate, subject
from .cost import Cost, Measured

__all__ = ["kernel_costs"]


def kernel_costs(model: ir.Model, target: Target, cost: Cost) -> Mapping[str, float] | None:
    """Cost of a run by kind of kernel (`conv`, `quantize`, …), on one thread; None when one cannot be measured."""
    program, _ = lower(prepared(model), replace(target, threads=1))
    subjects = {name: subject(program, name) for name in program.kernels}
    outcomes = cost.measure([Candidate(subjects[name], function) for name, function in program.kernels.items()])
    total: dict[str, float] = {}
    for name, outcome in zip(program.kernels, outcomes, strict=True):
        if not isinstance(outcome, Measured):
            return None
        kind = name.rpartition("_")[0]
        total[kind] = total.get(kind, 0.0) + subjects[name].calls * outcome.value
    return total

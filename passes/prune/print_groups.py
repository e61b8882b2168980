"""`print-groups`: the channel dependency groups of the model, as notes of the record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ...ir import shapes
from ...ir.channels import analyze, group_lines
from ..base import Pass
from ..context import Context

__all__ = ["PrintGroups"]


@dataclass(frozen=True)
class PrintGroups(Pass):
    """Every group of channels that can only be removed together: its units, its places, and why it is frozen if so"""

    name: ClassVar[str] = "print-groups"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        copy = model.clone()
        shapes.infer(copy)
        for group in analyze(copy).groups:
            for line in group_lines(group):
                context.record.note(line)

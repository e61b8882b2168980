"""`fixpoint{steps=4}(a,b)`: run the nested passes in order, again and again, until a round changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes import PassBase

from .base import Pass
from .context import Context
from .foreign import adopt
from .pipeline import format_value

__all__ = ["Fixpoint"]


@dataclass(frozen=True)
class Fixpoint(Pass):
    """Repeat `passes` until none of them changes the model, at most `steps` rounds.

    The manager expands it, so that every nested pass has its own record, verification and dump.
    """

    steps: int = 4
    passes: tuple[PassBase, ...] = ()
    name: ClassVar[str] = "fixpoint"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")
        if not self.passes:
            raise ValueError("the passes to repeat are missing: write fixpoint(a,b)")
        object.__setattr__(self, "passes", tuple(adopt(p) for p in self.passes))

    def spec(self) -> str:
        options = "" if self.steps == 4 else f"{{steps={format_value(self.steps)}}}"
        return f"fixpoint{options}({','.join(str(p) for p in self.passes)})"

    def run(self, model: ir.Model, context: Context) -> None:
        from .manager import PassManager

        record = context.record
        for nested in PassManager([self]).run(model, context).records:
            record.changes += nested.changes
            record.skips += nested.skips
            record.notes += nested.notes
        context.record = record

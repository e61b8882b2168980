"""`prune`: whole channels, heads and hidden units out of the model, within a budget, and the rest refitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ...errors import UsageError
from ...ir import shapes
from ..base import Pass
from ..budget import PRUNING_UNITS, Budget, parse_budget
from ..context import Context
from .plan import Plan

__all__ = ["Prune"]


@dataclass(frozen=True)
class Prune(Pass):
    """y = W₂·f(W₁x)  ⇒  y ≈ W₂′·f(W₁[K]x), W₂′ = argmin ‖f₂(W₂·z) − f₂(W₂′·z_K)‖², K the units kept

    ratio: share of every group's units to remove; budget: e.g. "macs=-40%" (parameters, size, latency), allocated
    over the groups by the error each causes in the outputs. Without either, the budget of the run (`--budget`).
    criterion: how units of a group are ranked; compensation: `refit` solves every layer behind for the outputs of
    the original on the user's or synthesised inputs, `merge` expresses every removed channel by the kept ones from
    weights alone, `none` leaves the weights as they are.
    alignment: kept channels are a multiple of it; 0 takes the target's. ridge, rows: of the least-squares problems.
    """

    ratio: float | None = None
    budget: str = ""
    criterion: Literal["obs", "l1", "l2", "fpgm", "bn-scale", "dfpc", "taylor", "attention", "random"] = "obs"
    compensation: Literal["refit", "merge", "none"] = "refit"
    alignment: int = 0
    ridge: float = 0.1
    rows: int = 8192
    name: ClassVar[str] = "prune"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        budget = self._budget(context)
        shapes.infer(model)
        plan = Plan(self, model, context)
        if not plan.groups:
            return
        counts = plan.share(self.ratio or 0.0) if budget is None else plan.within(budget)
        if counts is None:
            for group in plan.groups:
                context.record.skip(group.name, "the budget is out of reach at this alignment")
            return
        accepted = [
            n if n and context.record.change(g.name, f"{len(g)} → {len(g) - n} units") else 0
            for g, n in zip(plan.groups, counts, strict=True)
        ]
        for group, wanted in zip(plan.groups, counts, strict=True):
            if not wanted:
                context.record.skip(group.name, "every unit is worth more than elsewhere")
        plan.apply(accepted)

    def _budget(self, context: Context) -> Budget | None:
        """What the options or the run allow; None when a ratio is given instead."""
        if self.ratio is not None and not self.budget:
            if not 0 < self.ratio < 1:
                raise UsageError(f"{self.ratio} is not a ratio", where="prune", hint="write prune{ratio=0.3}")
            return None
        given = [b for unit, b in context.budgets.items() if unit in PRUNING_UNITS]
        budgets = [parse_budget(self.budget)] if self.budget else given
        if self.ratio is not None or len(budgets) != 1 or budgets[0].unit == "drop":
            hint = 'write prune{ratio=0.3} or prune{budget="macs=-40%"}, or give --budget macs=-40%'
            raise UsageError("prune wants a ratio or a budget, one of them", where="prune", hint=hint)
        return budgets[0]

"""What a result must keep to, checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..errors import NothingChangedError, VerificationError
from ..ir import shapes
from ..passes.budget import PRUNING_UNITS, Budget
from ..passes.fidelity import Fidelity
from ..passes.manager import Outcome
from ..targets.target import Target
from .options import Options

__all__ = ["check", "check_costs"]


def check(outcome: Outcome, fidelity: Fidelity, options: Options) -> None:
    if options.require_change and not outcome.changed:
        reasons = "; ".join(f"{r.pass_name}: {r.why_nothing()}" for r in outcome.records)
        raise NothingChangedError(
            "no pass changed the model",
            where=reasons[:600] or "empty pipeline",
            hint="choose other passes or another model",
        )
    if options.min_sqnr is None:
        return
    if fidelity.unavailable:
        raise VerificationError(
            f"the fidelity budget cannot be checked: {fidelity.unavailable}",
            where="--min-sqnr",
            hint="give --shape or --data",
        )
    for result in fidelity.final:
        if result.sqnr_db < options.min_sqnr:
            raise VerificationError(
                f"output {result.output!r} has {result.sqnr_db:.1f} dB SQNR, the budget is {options.min_sqnr:.1f} dB",
                where="the whole pipeline",
                hint="--bisect finds the rewrite that costs it; -O1 keeps the outputs exact",
            )


def check_costs(budgets: Mapping[str, Budget], original: ir.Model, model: ir.Model, target: Target) -> None:
    """Refuse a result that costs more than the budgets of pruning allow."""
    from ..passes.prune.costs import measure

    for unit in sorted(PRUNING_UNITS & budgets.keys()):
        shapes.infer(model)
        before, after = measure(unit, original, target), measure(unit, model, target)
        allowed = budgets[unit].allowed(before)
        if after > allowed * (1 + 1e-9):
            raise VerificationError(
                f"{unit} are {after:.4g}, the budget {budgets[unit]} allows {allowed:.4g} of {before:.4g}",
                where="--budget",
                hint="ask for less, or see with -v which channels are frozen and why",
            )

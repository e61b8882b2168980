"""What a result must keep to, checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from ..errors import NothingChangedError, VerificationError
from ..ir import shapes
from ..ir.cost import summary
from ..passes.budget import PRUNING_UNITS, Budget
from ..passes.context import Context
from ..passes.fidelity import Fidelity
from ..passes.manager import Outcome
from .options import Options

__all__ = ["check", "check_costs", "check_quality"]


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


def check_costs(context: Context, original: ir.Model, model: ir.Model) -> None:
    """Refuse a result that costs more than the budgets of pruning allow."""
    from ..passes.prune.costs import measure

    budgets = context.budgets
    for unit in sorted(PRUNING_UNITS & budgets.keys()):
        shapes.infer(model)
        before, after = (measure(unit, m, context.target, context.cost) for m in (original, model))
        allowed = budgets[unit].allowed(before)
        if after > allowed * (1 + 1e-9):
            raise VerificationError(
                f"{unit} are {after:.4g}, the budget {budgets[unit]} allows {allowed:.4g} of {before:.4g}",
                where="--budget",
                hint="ask for less, or see with -v which channels are frozen and why",
            )


def check_quality(budgets: Mapping[str, Budget], outcome: Outcome, original: ir.Model, model: ir.Model) -> None:
    """Refuse a result that is too large, or of which the prediction says that more may be lost than allowed."""
    if "size" in budgets:
        before, after = summary(original).weight_bytes, summary(model).weight_bytes
        if after > budgets["size"].allowed(before):
            raise VerificationError(
                f"the weights are {after:,} bytes, the budget is {budgets['size']}",
                where="--budget",
                hint="use -O2, which mixes 8 and 4 bits; remove channels too: --budget parameters=-40%",
            )
    if "drop" not in budgets:
        return
    lossy = any(record.changed and not record.exact for record in outcome.records)
    found = [r.measures["prediction"]["outputs"] for r in outcome.records if "prediction" in r.measures]
    if not lossy:
        return
    if not found:
        raise VerificationError(
            "nothing was predicted that the budget could be held against",
            where=f"--budget {budgets['drop']}",
            hint="end --passes with predict-fidelity; give --data where no inputs can be made",
        )
    for output in found[-1]:
        lost = likely_loss(output)
        if lost > budgets["drop"].allowed(0.0):
            raise VerificationError(
                f"up to {lost:.1%} may be lost at output {output['output']!r} on real data: "
                f"{output['sqnr_db']} ± {output['error_db']} dB SQNR are predicted",
                where=f"--budget {budgets['drop']}",
                hint="allow more, or give --data; the report lists the layers that cost most",
            )


def likely_loss(output: Mapping[str, Any]) -> float:
    """The share of decisions that may change, by the prediction's lower end; of the signal's power where the output
    holds no decisions.
    """
    least = output["least_agreement"]
    return float(1 - least if least is not None else 10 ** (-(output["sqnr_db"] - output["error_db"]) / 10))

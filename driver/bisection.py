"""Finding the first rewrite that breaks a model."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from ..errors import ModelError, PlanishError
from ..passes.bisect import Limit, first_bad
from ..passes.context import Context
from ..passes.fidelity import Fidelity
from ..passes.manager import Outcome, PassManager
from . import options as checking
from . import preparation
from .options import Options
from .passing import run_passes

__all__ = ["bisect"]


def bisect(source: Any, options: Options) -> tuple[int | None, Outcome]:
    """Number of the first rewrite after which the model is broken, and the records of the run that ends with it.

    Broken: the IR does not verify, ONNX Runtime refuses the model, an exact pipeline's outputs differ from the
    original's, or a lossy one's SQNR is below `min_sqnr` (10 dB when none is given). None when nothing breaks it.
    """
    checking.check(options)
    target = preparation.target(options)
    original = preparation.captured_model(source, options)
    reference = Fidelity(options.seed, preparation.context(options, target, original).data or ())
    reference.start(original)
    if reference.unavailable:
        raise ModelError(
            f"the original cannot be executed: {reference.unavailable}",
            where="--bisect",
            hint="give --shape or --data that it runs on",
        )

    def attempt(limit: int | None) -> tuple[bool, Outcome, Limit]:
        model, permit = original.clone(), Limit(limit)
        context = preparation.context(options, target, original)
        context.permit = permit
        manager = preparation.manager(options, target)
        broken = _is_broken(manager, model, context, reference, options)
        return broken, manager.outcome, permit

    _, _, counter = attempt(None)
    number = first_bad(lambda limit: attempt(limit)[0], counter.asked)
    return number, attempt(number)[1]


def _is_broken(manager: PassManager, model: ir.Model, context: Context, reference: Fidelity, options: Options) -> bool:
    fidelity = Fidelity(options.seed, reference.feeds)
    try:
        outcome = run_passes(manager, model, context, Options(seed=options.seed), fidelity)
    except PlanishError:
        return True
    lossy = any(not record.exact and record.changed for record in outcome.records)
    floor = options.min_sqnr if options.min_sqnr is not None else 10.0
    return lossy and any(f.sqnr_db < floor for f in fidelity.final)

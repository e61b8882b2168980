"""One model's way through the house: capture → passes → back end → artifact."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .. import report as reporting
from ..errors import UsageError
from ..ir import metadata
from ..ir.cost import summary
from ..passes.fidelity import Fidelity
from . import budgets, emission, preparation, tuning
from . import options as checking
from .options import Options
from .passing import run_passes

__all__ = ["Result", "optimize", "run"]

Array = npt.NDArray[np.generic]


@dataclass
class Result:
    """The optimized model, the report, and the directory with the artifact when one was asked for."""

    model: ir.Model
    report: dict[str, Any]
    artifact: Path | None = None
    original: ir.Model | None = None

    def run(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """Run the optimized model in ONNX Runtime: named inputs (or the one input) to named outputs."""
        from ..ir.execute import execute

        if not isinstance(inputs, Mapping):
            inputs = {str(self.model.graph.inputs[0].name): np.asarray(inputs)}
        return execute(self.model, inputs)


def optimize(model: Any, target: str = "host", output: str | Path | None = None, **options: Any) -> Result:
    """Optimize a model for a target and, when `output` is given, leave the artifact directory there.

    model: whatever `capture` takes, or a tuple (torch module, example inputs); options: the fields of `Options`.
    Raises the errors of `planish.errors`; the model given is never modified, `output` is written whole or not at all.
    """
    try:
        settings = Options(target=target, **options)
    except TypeError as error:
        raise UsageError(
            str(error), where="optimize", hint=f"options: {', '.join(Options.__dataclass_fields__)}"
        ) from error
    return run(model, settings, None if output is None else Path(output))


def run(source: Any, options: Options, output: Path | None = None) -> Result:
    """`optimize` with its options in one object."""
    from ..backends.artifact import check_writable
    from ..backends.explain import planned

    started = time.perf_counter()
    checking.check(options)
    target = preparation.target(options)
    tuning.check(options, target)
    manager = preparation.manager(options, target)
    if output is not None:
        check_writable(output)
    original = preparation.captured_model(source, options)
    model = original.clone()
    context = preparation.context(options, target, original)
    context.layer_cost = tuning.layer_cost(options, target)
    fidelity = Fidelity(options.seed, context.data or ())
    outcome = run_passes(manager, model, context, options, fidelity)
    budgets.check(outcome, fidelity, options)
    budgets.check_costs(context, original, model)
    budgets.check_quality(context.budgets, outcome, original, model)
    metadata.put(
        model, metadata.PREFIX + "pipeline", {"passes": manager.spec(), "seed": options.seed, "target": target.name}
    )
    facts = reporting.Facts(
        source, options.seed, target, manager.spec(), outcome, fidelity, summary(original), summary(model)
    )
    facts.notes = metadata.get(original, metadata.PREFIX + "capture") or []
    facts.placement = [asdict(place) for place in planned(model, target)]
    if output is None:
        facts.seconds = time.perf_counter() - started
        return Result(model, reporting.build(facts), None, original)
    from ..backends.artifact import staged

    with staged(output) as stage:
        emission.write(model, target, options, facts, stage)
        facts.seconds = time.perf_counter() - started
        content = reporting.build(facts)
        reporting.write(content, stage)
    return Result(model, content, output, original)

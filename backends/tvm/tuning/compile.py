"""`compile_tuned`: search configs for a model's kernels, compile it with them, keep that only where it is faster."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ....targets.target import Target
from ...compiled import Compiled
from ..compile import compile_model, prepared
from ..lower import lower
from ..program import Program
from .backends import cost_for
from .compare import compare
from .database import Database
from .interrupt import deferred
from .recall import recall
from .tune import Budget, Show, tune
from .tuning import Tuning

__all__ = ["Request", "compile_recorded", "compile_tuned"]


@dataclass(frozen=True)
class Request:
    """How a model is to be tuned.

    trials, seconds: the budget; without either the search is complete. database: its directory.
    tracker, key: address of a TVM RPC tracker and the name its boards have there.
    """

    trials: int | None
    seconds: float | None
    database: Path
    tracker: str | None = None
    key: str | None = None
    seed: int = 0


def compile_tuned(
    model: ir.Model,
    target: Target,
    directory: Path,
    request: Request,
    *,
    name: str = "model",
    show: Show | None = None,
) -> Compiled:
    """`compile_model` with configs found by measuring; never slower than without, by the same way of measuring.

    On this machine both forms are timed in turn; elsewhere the kernels' figures decide. The account is in `tuning`.
    """
    cost = cost_for(target, request.tracker, request.key)
    database = Database.open(request.database, write=True)
    program = _program(model, target)
    with deferred() as stop:
        budget = Budget(request.trials, request.seconds)
        tuning = tune(program, target, cost, database, budget, seed=request.seed, show=show, stop=stop)
    compiled = compile_model(model, target, directory, name=name, configs=tuning.configs)
    account = _account(tuning, cost.name, cost.unit, database.directory)
    if tuning.configs and target.kind == "host":
        compiled = _faster(model, target, directory, name, compiled, account)
    return replace(compiled, tuning=account)


def compile_recorded(
    model: ir.Model, target: Target, directory: Path, database: Path, *, name: str = "model"
) -> Compiled:
    """`compile_model` with the configs that won in searches before; nothing is measured."""
    held = Database.open(database)
    tuning = recall(_program(model, target), target, held)
    compiled = compile_model(model, target, directory, name=name, configs=tuning.configs)
    return replace(compiled, tuning=_account(tuning, "the database", "", database))


def _program(model: ir.Model, target: Target) -> Program:
    """The kernels to be tuned, each for one thread."""
    return lower(prepared(model), replace(target, threads=1))[0]


def _faster(
    model: ir.Model, target: Target, directory: Path, name: str, tuned: Compiled, account: dict[str, Any]
) -> Compiled:
    """The faster of the tuned form, which lies in `directory`, and the untuned one, which is put there if it wins."""
    with tempfile.TemporaryDirectory(prefix="planish-tune-") as scratch:
        plain = compile_model(model, target, Path(scratch), name=name)
        found = compare(Path(scratch) / f"{name}.so", directory / f"{name}.so", name)
        account |= {"untuned_s": found.first, "tuned_s": found.second, "equal_bits": found.equal}
        if found.equal and found.second <= found.first:
            return tuned
        why = "as a whole it is not faster" if found.equal else "its outputs differ"
        account["notes"].append(f"the tuned form is not used: {why}")
        account["kept"] = "untuned"
        shutil.copytree(scratch, directory, dirs_exist_ok=True)
        return plain


def _account(tuning: Tuning, cost: str, unit: str, database: Path) -> dict[str, Any]:
    tuned, untuned = tuning.total()
    return {
        "cost": cost,
        "unit": unit,
        "database": str(database),
        "trials": tuning.trials,
        "seconds": round(tuning.seconds, 3),
        "stopped": tuning.stopped,
        "kept": "tuned" if tuning.configs else "untuned",
        "kernels_tuned": tuned,
        "kernels_untuned": untuned,
        "workloads": [asdict(choice) for choice in tuning.choices],
        "notes": tuning.notes,
    }

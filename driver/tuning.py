"""The search for faster kernels as a run's options ask for it: checked before any work, done when code is emitted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from ..errors import UsageError
from ..targets.target import Target
from .options import Options

if TYPE_CHECKING:
    from ..backends.compiled import Compiled
    from ..ir.layer_cost import LayerCost

__all__ = ["check", "compile_tuned", "layer_cost", "wanted"]

_NEEDS_TUNE = ("trials", "time", "rpc", "key")


def wanted(options: Options) -> bool:
    """Whether configs are searched for, or read from a database."""
    return options.tune or options.tuning_db is not None


def check(options: Options, target: Target) -> None:
    """Refuse what cannot work before minutes are spent: options, the cost back end, the database."""
    for name in _NEEDS_TUNE:
        if getattr(options, name) is not None and not options.tune:
            raise UsageError(f"--{name} is about tuning", where=f"--{name}", hint="give --tune with it")
    if not wanted(options):
        return
    from ..backends.registry import COMPILERS, DEFAULT

    if COMPILERS.get(target.kind, DEFAULT) != DEFAULT:
        raise UsageError(
            f"the code for {target.name} is not made by TVM: there are no kernels to tune",
            where="--tune",
            hint="leave --tune out for this target",
        )
    if not options.compile:
        raise UsageError("--no-compile leaves nothing to tune", where="--tune", hint="give one of the two")
    from ..backends.tvm.tuning.backends import cost_for
    from ..backends.tvm.tuning.database import Database, default_directory

    Database.open(options.tuning_db or default_directory(), write=options.tune)
    if options.tune:
        cost_for(target, options.rpc, options.key)


def layer_cost(options: Options, target: Target) -> Callable[[ir.Node], LayerCost | None] | None:
    """What compares a layer in int8 with the same in float by measuring, in a run that tunes."""
    if not options.tune or options.trials == 0:
        return None
    from ..backends.tvm.tuning.backends import cost_for
    from .layers import MeasuredLayers

    return MeasuredLayers(target, cost_for(target, options.rpc, options.key))


def compile_tuned(model: ir.Model, target: Target, directory: Path, options: Options) -> Compiled:
    """Compile with configs that are searched for, or found in the database."""
    from ..backends.tvm.tuning.compile import Request, compile_recorded
    from ..backends.tvm.tuning.compile import compile_tuned as search
    from ..backends.tvm.tuning.database import default_directory

    database = options.tuning_db or default_directory()
    if not options.tune:
        return compile_recorded(model, target, directory, database)
    request = Request(options.trials, options.time, database, options.rpc, options.key, options.seed)
    return search(model, target, directory, request, show=options.progress)

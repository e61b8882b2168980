"""Writing the artifact: the ONNX file always, machine code where the target's back end can."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from .. import report as reporting
from ..errors import ModelError, PlanishError
from ..targets.target import Target
from . import tuning
from .options import Options

if TYPE_CHECKING:
    from ..backends.compiled import Compiled

__all__ = ["write"]


def write(model: ir.Model, target: Target, options: Options, facts: reporting.Facts, stage: Path) -> None:
    from ..backends.onnx import writer

    for path in writer.write(model, stage / "model.onnx"):
        facts.files[path.name] = path.stat().st_size
    (stage / "pipeline.txt").write_text(facts.pipeline + "\n", encoding="utf-8")
    if not options.compile:
        facts.not_compiled = "not asked for"
        return
    build = stage / "build"
    build.mkdir()
    try:
        facts.compiled = _compile(model, target, options, build, facts)
        for path in sorted(build.iterdir()):
            facts.files[path.name] = path.stat().st_size
            path.rename(stage / path.name)
        facts.placement = [asdict(place) for place in facts.compiled.placement]
        if options.require_npu:
            _check_npu(facts.compiled, target)
    except ModelError as error:
        facts.not_compiled = f"{error.what} ({error.where}); {error.hint}"
        if options.require_compiled or options.require_npu:
            raise
    finally:
        shutil.rmtree(build)


def _compile(model: ir.Model, target: Target, options: Options, directory: Path, facts: reporting.Facts) -> Compiled:
    from ..backends.batch import fix_batch
    from ..backends.registry import compiler

    static, batches = fix_batch(model)
    if batches:
        names = ", ".join(batches)
        facts.notes.append(f"compiled for batch 1 ({names} has a free first dimension); --shape chooses another")
    try:
        if tuning.wanted(options):
            return tuning.compile_tuned(static, target, directory, options)
        return compiler(target.kind)(static, target, directory)
    except PlanishError:
        raise
    except Exception as error:  # the ONNX file is good without machine code; the user is told
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"the compiler failed: {type(error).__name__}: {lines[-1][:300]}",
            where=f"target {target.name}",
            hint="model.onnx runs in ONNX Runtime; please report the model",
        ) from error


def _check_npu(compiled: Compiled, target: Target) -> None:
    """Refuse a result of which a node runs on the CPU."""
    for place in compiled.placement:
        if place.where == "CPU":
            raise ModelError(
                f"{place.op} {place.node} would run on the CPU: {place.reason}",
                where=f"--require-npu, target {target.name}",
                hint="change the model as the reason says, or leave --require-npu out",
            )

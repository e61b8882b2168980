"""`compile_model`: an ONNX model, float or with Q/DQ, to a runtime-free artifact for one target."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from ...errors import UsageError
from ...ir.shapes import infer
from ...targets.target import Target
from ..compiled import Compiled, Placement
from . import emit_c, emit_ffi, emit_threads, kernels, link, parallel
from .expand import expand
from .lower import lower
from .machine import CPU, Machine
from .operators.workload import Config, Workload
from .program import ALIGNMENT

__all__ = ["compile_model", "prepared"]


def compile_model(
    model: ir.Model,
    target: Target,
    directory: Path,
    *,
    name: str = "model",
    configs: Mapping[Workload, Config] | None = None,
    machine: Machine = CPU,
) -> Compiled:
    """Compile a model with static shapes into `directory`; `configs` overrides what kernels choose for themselves.

    Writes NAME.so, NAME.o (the kernels), NAME.c, NAME.h, weights.S with NAME.weights, main.c and, for CPUs, tvm_ffi.c,
    with which NAME.so is a module of the TVM runtime as well.
    Raises ModelError for what cannot be compiled, PlanishError for a missing compiler; nothing is written then.
    """
    start = time.perf_counter()
    if not name.isidentifier() or not name.isascii():
        raise UsageError(f"{name!r} is not a name in C", where="compile_model", hint="use letters, digits and _")
    link.compiler(target)
    ready = prepared(model)
    program, placement = lower(ready, target, configs, machine)
    wanted = target.threads
    if wanted > 1 and not parallel.pays([(f, program.runs(k)) for k, f in program.kernels.items()], wanted):
        target = replace(target, threads=1)
        program, placement = lower(ready, target, configs, machine)
    library, program.interfaces = kernels.build_parts(program.kernels, f"{name}_", target)
    names = ([str(v.name) for v in ready.graph.inputs], [str(v.name) for v in ready.graph.outputs])
    files, arena = emit_c.emit(program, name, names, target.threads, team=wanted > 1)
    sources = [f"{name}.c", "weights.S", f"{name}.o"]
    if machine is CPU:
        files[emit_ffi.FILE] = emit_ffi.emit(name, len(names[0]), len(names[1]), ALIGNMENT).encode()
        sources.append(emit_ffi.FILE)
    directory.mkdir(parents=True, exist_ok=True)
    for path, contents in files.items():
        (directory / path).write_bytes(contents)
    library.write_to_file(str(directory / f"{name}.o"), "o")
    options = ["-shared", "-fPIC", *emit_threads.link_options(wanted)]
    link.link(target, directory, sources, f"{name}.so", options)
    for path in (f"{name}.o", f"{name}.so"):
        files[path] = (directory / path).read_bytes()
    return Compiled(
        files=files,
        placement=placement,
        arena_bytes=arena,
        code_bytes=len(files[f"{name}.o"]),
        weight_bytes=len(files[f"{name}.weights"]),
        notes=_notes(placement, target.threads < wanted),
        seconds=time.perf_counter() - start,
    )


def _notes(placement: Sequence[Placement], alone: bool) -> list[str]:
    """What a user should know: how often integers become floats and back, beside the model's own ends; `alone`: threads
    were asked for in vain.
    """
    found = ["one thread runs the model: it is too small to gain from more"] if alone else []
    counts = Counter(place.where for place in placement if place.where in ("quantize", "dequantize"))
    if not counts:
        return found
    return [
        *found,
        f"conversions to int8: {counts['quantize']}, to float32: {counts['dequantize']}; the placement says why",
    ]


def prepared(model: ir.Model) -> ir.Model:
    """A copy ready to be lowered: shapes inferred, what they make constant folded; the user's model is not touched."""
    from onnx_ir.passes.common import (
        LiftConstantsToInitializersPass,
        RemoveInitializersFromInputsPass,
        RemoveUnusedNodesPass,
    )
    from onnxscript.optimizer import fold_constants

    copy = model.clone()
    RemoveInitializersFromInputsPass()(copy)
    infer(copy)
    if expand(copy):
        infer(copy)
    if any(node.op_type in ("Shape", "Size") for node in copy.graph):
        fold_constants(copy, onnx_shape_inference=False)
        RemoveUnusedNodesPass()(copy)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    infer(copy)
    return copy

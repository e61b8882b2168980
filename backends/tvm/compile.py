"""`compile_model`: an ONNX model, float or with Q/DQ, to a runtime-free artifact for one target."""

from __future__ import annotations

import time
from pathlib import Path

import onnx_ir as ir

from ...ir.shapes import infer
from ...targets.target import Target
from ..compiled import Compiled
from . import emit_c, kernels, link
from .lower import lower

__all__ = ["compile_model"]


def compile_model(model: ir.Model, target: Target, directory: Path, *, name: str = "model") -> Compiled:
    """Compile a model with static shapes into `directory`.

    Writes NAME.so, NAME.o (the kernels), NAME.c, NAME.h, weights.S with NAME.weights, and main.c.
    Raises ModelError for what cannot be compiled, PlanishError for a missing compiler.
    """
    start = time.perf_counter()
    program, placement = lower(_prepared(model), target)
    library, program.workspaces = kernels.build(program.kernels, f"{name}_", target)
    names = ([str(v.name) for v in model.graph.inputs], [str(v.name) for v in model.graph.outputs])
    files, arena = emit_c.emit(program, name, names)
    directory.mkdir(parents=True, exist_ok=True)
    for path, contents in files.items():
        (directory / path).write_bytes(contents)
    library.write_to_file(str(directory / f"{name}.o"), "o")
    link.link(target, directory, [f"{name}.c", "weights.S", f"{name}.o"], f"{name}.so", ["-shared", "-fPIC"])
    for path in (f"{name}.o", f"{name}.so"):
        files[path] = (directory / path).read_bytes()
    return Compiled(
        files=files,
        placement=placement,
        arena_bytes=arena,
        code_bytes=len(files[f"{name}.o"]),
        weight_bytes=len(files[f"{name}.weights"]),
        seconds=time.perf_counter() - start,
    )


def _prepared(model: ir.Model) -> ir.Model:
    """A copy with shapes inferred, what they make constant folded; the user's model is not touched."""
    from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass
    from onnxscript.optimizer import fold_constants

    copy = model.clone()
    infer(copy)
    if any(node.op_type in ("Shape", "Size") for node in copy.graph):
        fold_constants(copy, onnx_shape_inference=False)
        RemoveUnusedNodesPass()(copy)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    infer(copy)
    return copy

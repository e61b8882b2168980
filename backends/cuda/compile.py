"""`compile_model`: an ONNX model, float or with Q/DQ, to a shared library that runs it on one GPU architecture."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import onnx_ir as ir

from ...errors import PlanishError
from ...targets.target import Target
from ..compiled import Compiled
from ..tvm import link
from ..tvm.compile import prepared
from ..tvm.lower import lower
from . import kernels
from .compiler import Toolchain, toolchain
from .emit import emit
from .inspection import KINDS, KernelFacts, inspect
from .machine import CUDA

__all__ = ["compile_model"]


def compile_model(model: ir.Model, target: Target, directory: Path) -> Compiled:
    """Compile a model with static shapes into `directory`; every kernel is really compiled, none is executed.

    Writes model.so, model.c, model.h, model.cu, model.fatbin (.cubin without nvcc), model.weights, blobs.S, main.c,
    and kernels.json: registers, shared memory and kind of products of each kernel.
    Raises ModelError for what cannot be compiled, PlanishError for a missing compiler; nothing is written then.
    """
    start = time.perf_counter()
    compiler = toolchain(target.cpu)
    link.compiler(target)
    ready = prepared(model)
    program, placement = lower(ready, target, None, CUDA)
    source = kernels.build(program.kernels, target)
    program.interfaces = dict(source.interfaces)
    image = compiler.compile(source.text, target.cpu)
    facts = inspect(image)
    _check(source, facts, compiler)
    names = ([str(v.name) for v in ready.graph.inputs], [str(v.name) for v in ready.graph.outputs])
    files, arena = emit(program, source, "model", names, target.name, image.suffix)
    files |= {f"model.{image.suffix}": image.contents, "kernels.json": _table(facts)}
    directory.mkdir(parents=True, exist_ok=True)
    for path, contents in files.items():
        (directory / path).write_bytes(contents)
    link.link(target, directory, ["model.c", "blobs.S"], "model.so", ["-shared", "-fPIC", "-pthread", "-ldl"])
    files["model.so"] = (directory / "model.so").read_bytes()
    return Compiled(
        files=files,
        placement=placement,
        arena_bytes=arena,
        code_bytes=len(image.contents),
        weight_bytes=len(files["model.weights"]),
        notes=_notes(facts, compiler, target),
        seconds=time.perf_counter() - start,
    )


def _check(source: kernels.Source, facts: Sequence[KernelFacts], compiler: Toolchain) -> None:
    """Every kernel that is launched was compiled."""
    built = {kernel.name for kernel in facts}
    missing = [launch.symbol for group in source.launches.values() for launch in group if launch.symbol not in built]
    if missing:
        raise PlanishError(
            f"{compiler.name} left out {len(missing)} kernels: {', '.join(missing[:4])}",
            where="CUDA back end",
            hint="please report the model and the version of the compiler",
        )


def _notes(facts: Sequence[KernelFacts], compiler: Toolchain, target: Target) -> list[str]:
    """What a user should know: that nothing was measured, and what the kernels are made of."""
    counts = Counter(kernel.products for kernel in facts)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    notes = [f"compiled, not executed, untuned: {len(facts)} kernels for {target.cpu} by {compiler.name} ({kinds})"]
    spilling = [kernel.name for kernel in facts if kernel.spilled_bytes]
    return notes + ([f"kernels that spill registers: {', '.join(spilling)}"] if spilling else [])


def _table(facts: Sequence[KernelFacts]) -> bytes:
    return (json.dumps([asdict(kernel) for kernel in facts], indent=1) + "\n").encode()

"""The back end: parts of the model for the NPU, and machine code for what is left to the CPU beside it."""

from __future__ import annotations

import io
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
from planish.backends.compiled import Compiled, Placement
from planish.backends.partition import Part, partition, placements, submodel
from planish.backends.tvm import compile as cpu
from planish.ir.integer import plan
from planish.targets.registry import resolve
from planish.targets.target import Target

from .emit import emit
from .target import refuse

__all__ = ["compile_model", "explain"]


def explain(model: ir.Model, target: Target) -> list[Placement]:
    """Where each node would run, for `--explain`."""
    return placements(_parts(cpu.prepared(model)), refuse)


def compile_model(model: ir.Model, target: Target, directory: Path) -> Compiled:
    """Write `npu_K.json` and `npu_K.npz` for each part on the NPU, `cpu_K.so` for each other, and `parts.json`."""
    start = time.perf_counter()
    ready = cpu.prepared(model)
    parts = _parts(ready)
    files: dict[str, bytes] = {}
    order, arena = [], 0
    for number, part in enumerate(parts):
        stem = f"{'npu' if part.on_npu else 'cpu'}_{number}"
        if part.on_npu:
            files |= _npu(part, stem)
        else:
            code, bytes_ = _cpu(submodel(ready, part), stem)
            files[f"{stem}.so"], arena = code, max(arena, bytes_)
        order.append({"stem": stem, "inputs": part.inputs, "outputs": part.outputs})
    outputs = [str(v.name) for v in ready.graph.outputs]
    files["parts.json"] = json.dumps({"parts": order, "outputs": outputs}, indent=1).encode()
    for name, contents in files.items():
        (directory / name).write_bytes(contents)
    placement = placements(parts, refuse)
    on_npu = sum(place.where == "NPU" for place in placement)
    return Compiled(
        files=files,
        placement=placement,
        arena_bytes=arena,
        code_bytes=sum(len(data) for name, data in files.items() if name.endswith((".so", ".json"))),
        weight_bytes=sum(len(data) for name, data in files.items() if name.endswith(".npz")),
        notes=[f"{on_npu} of {len(placement)} operations on the NPU, in {sum(part.on_npu for part in parts)} part(s)"],
        seconds=time.perf_counter() - start,
    )


def _parts(model: ir.Model) -> list[Part]:
    return partition(model, plan(model), refuse)


def _npu(part: Part, stem: str) -> dict[str, bytes]:
    program, arrays = emit(part)
    held = io.BytesIO()
    np.savez(held, **arrays)  # type: ignore[arg-type]
    return {f"{stem}.json": program.encode(), f"{stem}.npz": held.getvalue()}


def _cpu(model: ir.Model, stem: str) -> tuple[bytes, int]:
    """The shared library of a part, by Planish's own CPU back end, and the working memory it needs."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = cpu.compile_model(model, resolve("host"), Path(folder), name=stem)
        return (Path(folder) / f"{stem}.so").read_bytes(), compiled.arena_bytes

"""`compile_model`: an ONNX model to `model.tflite` and `model_vela.tflite` for one Ethos-U, with Vela's account."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from ...errors import ModelError
from ...targets.ethosu import ACCELERATORS, Accelerator
from ...targets.ethosu_contract import verdict
from ...targets.target import Target
from ...targets.tflite import Network
from ..compiled import Compiled, Placement
from . import vela
from .flatbuffer import serialize
from .lower import Lowered, Served, lower
from .prepare import prepared

__all__ = ["compile_model", "explain", "measured_placement"]

_NPU, _CPU = "NPU", "CPU"


def compile_model(model: ir.Model, target: Target, directory: Path, *, name: str = "model") -> Compiled:
    """Compile a model with static shapes into `directory`: NAME.tflite, which LiteRT runs, and NAME_vela.tflite.

    Raises ModelError for what has no TFLite form or needs more SRAM than the target has, UsageError without the extra.
    """
    start = time.perf_counter()
    member = _member(target)
    lowered = lower(prepared(model))
    plain = serialize(lowered.network)
    directory.mkdir(parents=True, exist_ok=True)
    source = directory / f"{name}.tflite"
    source.write_bytes(plain)
    work = directory / "vela"
    compiled, estimate = vela.compile_network(source, target.cpu, member, work)
    for path in work.iterdir():
        path.unlink()
    work.rmdir()
    if estimate.sram > member.sram_bytes:
        raise ModelError(
            f"the model needs {estimate.sram / 1024:.0f} KiB of SRAM, the target has {member.sram_bytes / 1024:.0f}",
            where=f"target {target.name}",
            hint="give a smaller --shape, prune the model, or state more with --sram",
        )
    (directory / f"{name}_vela.tflite").write_bytes(compiled)
    placement = measured_placement(lowered, member, compiled)
    return Compiled(
        files={f"{name}.tflite": plain, f"{name}_vela.tflite": compiled},
        placement=placement,
        arena_bytes=estimate.sram,
        code_bytes=len(compiled),
        weight_bytes=estimate.weights,
        notes=_notes(estimate, placement, lowered.network),
        seconds=time.perf_counter() - start,
    )


def explain(model: ir.Model, target: Target) -> list[Placement]:
    """Node by node NPU or CPU, by the target's table alone: Vela is not run."""
    return _placement(lower(prepared(model)), _member(target), None)


def measured_placement(lowered: Lowered, member: Accelerator, compiled: bytes) -> list[Placement]:
    """Node by node NPU or CPU, as Vela's output has it; the reasons are the table's."""
    return _placement(lowered, member, vela.on_cpu(compiled))


def _member(target: Target) -> Accelerator:
    return replace(ACCELERATORS[target.cpu], sram_bytes=target.cache_bytes)


def _placement(lowered: Lowered, member: Accelerator, cpu: Collection[str] | None) -> list[Placement]:
    """A node is on the NPU when all its operators are; `cpu`: tensors that Vela left to the CPU, None to predict."""
    found: dict[str, Placement] = {}
    for served in lowered.served:
        operations = [o for o in lowered.network.operations if served.node in o.nodes]
        verdicts = [v for o in operations if (v := verdict(o, member)) is not None]
        left = bool(verdicts) if cpu is None else any(o.outputs[0].name in cpu for o in operations)
        reason = _reason(served, [f"{v.reason}; {v.fix}" for v in verdicts], left, bool(operations))
        wide = any(t.dtype == "int16" for o in operations for t in o.outputs)
        dtype = "float32" if not served.integer else "int16" if wide else "int8"
        found[served.node] = Placement(served.node, served.op, dtype, _CPU if left else _NPU, reason)
    return list(found.values())


def _reason(served: Served, verdicts: list[str], left: bool, operators: bool) -> str:
    if not operators:
        return "no operator is left of it"
    if left:
        why = verdicts[0] if verdicts else "Vela left it to the CPU by a rule that the table does not have"
        return f"{served.reason}: {why}" if served.reason else why
    return served.reason


def _notes(estimate: vela.Estimate, placement: list[Placement], network: Network) -> list[str]:
    on_npu = sum(place.where == _NPU for place in placement)
    notes = [
        f"Vela's estimate, not executed: {estimate.cycles} cycles ({estimate.npu_cycles} of the NPU), "
        f"{estimate.seconds * 1e3:.3f} ms, {estimate.sram / 1024:.1f} KiB SRAM, "
        f"{estimate.memory / 1024:.1f} KiB other memory, {estimate.weights} bytes of encoded weights",
        f"{on_npu} of {len(placement)} nodes on the NPU",
    ]
    for side, tensors in (("input", network.inputs), ("output", network.outputs)):
        for tensor in tensors:
            text = f"{side} {tensor.name}: {tensor.dtype} {list(tensor.shape)}"
            if tensor.scale is not None and tensor.zero_point is not None:
                text += f", scale {float(tensor.scale):.8g}, zero point {int(tensor.zero_point)}"
            notes.append(text)
    return notes

"""Run Vela on a .tflite file: its command stream, cycles, memory, and the operators it left to the CPU."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ModelError
from ...targets.ethosu import Accelerator
from . import environment

__all__ = ["Estimate", "compile_network", "on_cpu"]

_KIB = 1024
_SECONDS = 1800
_COMMAND_STREAM = b"ethos-u"


@dataclass(frozen=True)
class Estimate:
    """Vela's own figures for one inference; nothing was executed. Sizes in bytes.

    npu_cycles: of the NPU alone; cycles: with the memory it waits for.
    """

    cycles: int
    npu_cycles: int
    seconds: float
    sram: int
    memory: int
    weights: int
    macs: int


def compile_network(source: Path, name: str, member: Accelerator, directory: Path) -> tuple[bytes, Estimate]:
    """The compiled flatbuffer and the estimate; `directory` is for Vela's files. ModelError when Vela refuses.

    Compiled for speed; where that takes more SRAM than the member has, once more for the smallest.
    """
    compiled, estimate = _run(source, name, member, directory, "Performance")
    if estimate.sram > member.sram_bytes:
        return _run(source, name, member, directory, "Size")
    return compiled, estimate


def _run(source: Path, name: str, member: Accelerator, directory: Path, strategy: str) -> tuple[bytes, Estimate]:
    command = [sys.executable, "-m", environment.vela(), str(source), "--accelerator-config", name]
    command += ["--config", "Arm/vela.ini", "--system-config", member.system, "--memory-mode", member.memory]
    command += ["--output-dir", str(directory), "--optimise", strategy]
    if member.memory.startswith("Dedicated"):
        command += ["--arena-cache-size", str(member.sram_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    compiled = directory / f"{source.stem}_vela.tflite"
    if done.returncode or not compiled.is_file():
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise ModelError(
            f"Vela refused the model: {' '.join(lines[-3:])[:400] or 'no message'}",
            where=f"target {name}",
            hint="model.onnx runs in ONNX Runtime; please report the model",
        )
    (summary,) = directory.glob(f"{source.stem}_summary_*.csv")
    return compiled.read_bytes(), _estimate(summary)


def _estimate(summary: Path) -> Estimate:
    with summary.open() as file:
        (row,) = csv.DictReader(file)

    def number(*names: str) -> float:
        return sum(float(row.get(name) or 0) for name in names)

    return Estimate(
        cycles=round(number("cycles_total")),
        npu_cycles=round(number("cycles_npu")),
        seconds=number("inference_time"),
        sram=round(number("sram_memory_used") * _KIB),
        memory=round(number("dram_memory_used", "on_chip_flash_memory_used", "off_chip_flash_memory_used") * _KIB),
        weights=round(number("total_npu_encoded_weights")),
        macs=round(number("nn_macs")),
    )


def on_cpu(compiled: bytes) -> set[str]:
    """Names of the tensors that operators outside the NPU's command streams write."""
    schema: Any = environment.schema()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(compiled, 0))
    names = set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            if model.operatorCodes[operator.opcodeIndex].customCode != _COMMAND_STREAM:
                names |= {graph.tensors[i].name.decode() for i in operator.outputs}
    return names

"""Hexagon under qemu-hexagon on the model pack: bits against the reference, instructions, VRMPY, as JSON lines.

    python -m planish.tools.bench.hexagon [--samples N] [--version v66] [MODEL ...]

Ranges are those of random inputs: bits are compared here, not accuracy. Instructions are what QEMU counts in one run,
no cycles: it simulates neither stalls nor caches. `vrmpy` of a kernel is how often its code holds the instruction, not
how often it runs.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...backends.batch import fix_batch
from ...backends.hexagon.compile import compile_model
from ...backends.hexagon.emulate import Counts, Runner, unavailable
from ...backends.hexagon.kernel import HEXAGON
from ...backends.tvm import kernels
from ...backends.tvm.compile import prepared
from ...backends.tvm.lower import lower
from ...driver import optimize
from ...errors import PlanishError
from ...ir.capture import capture
from ...ir.cost import summary
from ...ir.reference import Reference
from ...passes.defaults import exact
from ...passes.registry import parse
from ...targets.registry import resolve
from ...targets.target import Target
from .quantization import PACK

Array = npt.NDArray[np.generic]

MODELS = ("kws_dscnn", "resnet8_cifar10", "resnet20_cifar10")


@dataclass
class Kernel:
    """One kernel: its operation, how many calls share it, VRMPY instructions in its code."""

    name: str
    kind: str
    calls: int
    vrmpy: int


@dataclass
class Row:
    """One model; `bit_equal`: how many of the samples gave the reference's outputs in every bit."""

    model: str
    target: str
    samples: int = 0
    bit_equal: int = 0
    macs: int = 0
    counts: Counts | None = None
    kernels: list[Kernel] = field(default_factory=list)
    code_bytes: int = 0
    weight_bytes: int = 0
    arena_bytes: int = 0
    seconds: float = 0.0
    error: str = ""


def measure(path: Path, target: Target, samples: int) -> Row:
    """Optimize, compile and run one model on random inputs of its signature."""
    start = time.perf_counter()
    row = Row(path.parent.name, target.name, samples)
    signature, _ = fix_batch(capture(path))
    passes = [*exact(), *parse("activation-ranges,quantize,remove-unused")]
    data = [inputs(signature, seed) for seed in range(4)]
    model, _ = fix_batch(optimize(path, target=target.name, passes=passes, data=data).model)
    row.macs = summary(model).macs
    row.kernels = list_kernels(model, target)
    with tempfile.TemporaryDirectory() as directory:
        compiled = compile_model(model, target, Path(directory))
        row.code_bytes, row.weight_bytes = compiled.code_bytes, compiled.weight_bytes
        row.arena_bytes = compiled.arena_bytes
        runner, reference = Runner(Path(directory), target), Reference(model)
        for seed in range(samples):
            feeds = inputs(model, seed)
            want = reference(feeds)
            got, row.counts = runner(feeds, want)
            row.bit_equal += all(np.array_equal(got[name], array) for name, array in want.items())
    row.seconds = round(time.perf_counter() - start, 1)
    return row


def inputs(model: ir.Model, seed: int) -> dict[str, Array]:
    """Random inputs of a width of their own for each seed, so that small and clipped values occur."""
    rng = np.random.default_rng(seed)
    shapes = {str(v.name): [int(d) for d in v.shape or () if isinstance(d, int)] for v in model.graph.inputs}
    return {name: rng.normal(0, rng.uniform(0.1, 2), shape).astype(np.float32) for name, shape in shapes.items()}


def list_kernels(model: ir.Model, target: Target) -> list[Kernel]:
    """The kernels of a model and the VRMPY instructions in the code of each."""
    program, _ = lower(prepared(model), target, None, HEXAGON)
    text = kernels.assembly(kernels.build(program.kernels, "", target)[0])
    found = []
    for name in program.kernels:
        body = re.search(rf"^{name}:$.*?^\s*\.size\s+{name}\b", text, re.M | re.S)
        assert body is not None
        calls = sum(call.kernel == name for call in program.calls)
        found.append(Kernel(name, name.rpartition("_")[0], calls, body[0].count("vrmpy(")))
    return found


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--pack", type=click.Path(exists=True, path_type=Path), default=PACK, help="Directory of the models.")
@click.option("--version", default="v66", show_default=True, help="Version of Hexagon.")
@click.option("--samples", default=8, show_default=True, help="Random inputs to compare on.")
def main(models: tuple[str, ...], pack: Path, version: str, samples: int) -> None:
    target = resolve(f"hexagon/{version}")
    if reason := unavailable(target):
        raise click.ClickException(reason)
    for name in models or MODELS:
        try:
            row = measure(pack / name / "model.onnx", target, samples)
        except PlanishError as error:
            row = Row(name, target.name, error=str(error))
        json.dump(asdict(row), sys.stdout)
        sys.stdout.write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Estimated cycles on an arm64 core, with no board: our compiled int8 models beside ONNX Runtime's aarch64 build.

    python -m planish.tools.bench.arm64_model --sysroot DIR [--tuning-db DIR [--seconds N]] [MODEL ...]

Both run under QEMU, which counts how often every block of instructions runs in one inference; llvm-mca says what each
block costs on the core. The estimate knows no caches, no branch prediction and no overlap of blocks: it compares, it is
no time. ONNX Runtime gets the same quantized network with int8 and with uint8 activations, and the better figure
counts; what Python adds to its `run` is in the count (docs/tuning.md says how the sysroot is made).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import click
import numpy as np
import onnx_ir as ir

from ...backends.batch import fix_batch
from ...backends.tvm import link
from ...backends.tvm.compile import compile_model
from ...backends.tvm.tuning import emulator, mca
from ...backends.tvm.tuning.compile import Request, compile_tuned
from ...backends.tvm.tuning.cost_model import estimate
from ...errors import PlanishError
from ...passes.context import Context
from ...passes.defaults import for_level
from ...passes.manager import PassManager
from ...targets.registry import resolve
from ...targets.target import Target
from .latency import feeds_for
from .quantization import PACK

MODELS = ("resnet20_cifar10", "mobilenetv2_tf")
_SOURCE, _PEER = (Path(__file__).with_name(name) for name in ("arm64_run.c", "arm64_peer.py"))
_SECONDS = 1800.0


def _static(source: Path, target: Target, level: int) -> ir.Model:
    """A model of the pack after the named pipeline, for batch 1."""
    model = ir.load(source)
    PassManager(for_level(level, target)).run(model, Context(target=target, seed=0))
    return fix_batch(model)[0]


def _estimated(regions: emulator.Regions, cpu: str) -> dict[str, float]:
    """Millions of instructions and of estimated cycles of the counted inference."""
    (region,) = regions
    instructions = sum(times * len(block) for block, times in region.items())
    return {
        "M_instructions": round(instructions / 1e6, 3),
        "M_cycles": round(estimate(region, mca.MODELS[cpu], {}) / 1e6, 4),
    }


def ours(directory: Path, target: Target, feeds: dict[str, Any]) -> dict[str, Any]:
    """One inference of the compiled model in `directory`."""
    (directory / _SOURCE.name).write_bytes(_SOURCE.read_bytes())
    for i, array in enumerate(feeds.values()):
        array.tofile(directory / f"{i}.in")
    sources = [_SOURCE.name, "model.c", "weights.S", "model.o"]
    link.link(target, directory, sources, "counted", ["-static"], static=True)
    command = ["./counted", *(f"{i}.in" for i in range(len(feeds)))]
    text, regions = emulator.count(command, target.cpu, directory, seconds=_SECONDS)
    return {**_estimated(regions, target.cpu), "outputs": text.strip()}


def onnx_runtime(model: ir.Model, directory: Path, sysroot: Path, cpu: str, feeds: dict[str, Any]) -> dict[str, float]:
    """One inference of ONNX Runtime's aarch64 build."""
    directory.mkdir()
    ir.save(model, directory / "model.onnx")
    np.savez(directory / "feeds.npz", **feeds)
    root = sysroot.resolve()
    command = [str(root / "usr/bin/python3.11"), "-S", str(_PEER), "model.onnx", "feeds.npz"]
    _, regions = emulator.count(command, cpu, directory, seconds=_SECONDS, options=["-L", str(root)])
    return _estimated(regions, cpu)


def static_bytes(directory: Path, target: Target) -> int:
    """Size of the example program, linked statically with musl and stripped: all that a board needs."""
    link.link(
        target, directory, ["main.c", "model.c", "weights.S", "model.o"], "static", ["-static", "-s"], static=True
    )
    return (directory / "static").stat().st_size


def measure(
    source: Path, cpu: str, sysroot: Path | None, tune: Path | None, seconds: float | None, scratch: Path
) -> dict[str, Any]:
    """One model: estimates of ours, untuned and tuned, and of ONNX Runtime in each precision; bytes of the program."""
    target = resolve(f"arm64/{cpu}")
    integer, plain = _static(source, target, 2), _static(source, target, 1)
    feeds = feeds_for(integer)
    compile_model(integer, target, scratch / "int8")
    compile_model(plain, target, scratch / "float")
    found: dict[str, Any] = {
        "planish_int8": ours(scratch / "int8", target, feeds),
        "planish_float": ours(scratch / "float", target, feeds),
        "static_bytes": static_bytes(scratch / "int8", target),
    }
    if tune is not None:
        account = compile_tuned(integer, target, scratch / "tuned", Request(None, seconds, tune)).tuning or {}
        found["planish_int8_tuned"] = ours(scratch / "tuned", target, feeds)
        found["search"] = {key: account[key] for key in ("trials", "seconds", "stopped")}
        if found["planish_int8_tuned"]["outputs"] != found["planish_int8"]["outputs"]:
            raise PlanishError("tuning changed the outputs", where=str(source), hint="please report the model")
    if sysroot is not None:
        unsigned = _static(source, replace(target, activation=ir.DataType.UINT8), 2)
        contenders = {"int8_s8s8": integer, "int8_u8s8": unsigned, "float": plain}
        for name, model in contenders.items():
            found[f"onnxruntime_{name}"] = onnx_runtime(model, scratch / f"onnxruntime_{name}", sysroot, cpu, feeds)
        best = min(found[f"onnxruntime_int8_{kind}"]["M_cycles"] for kind in ("s8s8", "u8s8"))
        mine = found.get("planish_int8_tuned", found["planish_int8"])
        found["int8 / onnxruntime int8"] = round(mine["M_cycles"] / best, 3)
        found["int8 untuned / onnxruntime int8"] = round(found["planish_int8"]["M_cycles"] / best, 3)
    return found


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--pack", type=click.Path(exists=True, path_type=Path), default=PACK, help="Directory of the models.")
@click.option("--cpu", type=click.Choice(sorted(mca.MODELS)), default="neoverse-n1", help="The core.")
@click.option("--sysroot", type=click.Path(exists=True, path_type=Path), help="A Debian arm64 tree with onnxruntime.")
@click.option("--tuning-db", type=click.Path(path_type=Path), help="Tune too, with this database.")
@click.option("--seconds", type=float, help="The most that the search of a model may take; complete without.")
def main(
    models: Sequence[str], pack: Path, cpu: str, sysroot: Path | None, tuning_db: Path | None, seconds: float | None
) -> None:
    rows: dict[str, Any] = {}
    for name in models or MODELS:
        with tempfile.TemporaryDirectory() as scratch:
            rows[name] = measure(pack / name / "model.onnx", cpu, sysroot, tuning_db, seconds, Path(scratch))
        click.echo(f"{name}: {rows[name]}", err=True)
    table: dict[str, Any] = {"cost": f"QEMU + llvm-mca, {mca.MODELS[cpu]}: estimates, not times", "models": rows}
    ratios = [row["int8 / onnxruntime int8"] for row in rows.values() if "int8 / onnxruntime int8" in row]
    if ratios:
        table["geometric mean of int8 / onnxruntime int8"] = round(geometric_mean(ratios), 3)
    json.dump(table, sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()

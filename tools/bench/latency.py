"""Latency on this machine, batch 1: compiled int8 and float beside ONNX Runtime and OpenVINO, as JSON.

    python -m planish.tools.bench.latency [--rounds N] [--peers-python PYTHON] [--plot FILE.png] [MODEL ...]

Every contender of a model runs on one thread in every round, in turn, so that other work on the machine meets all of
them. Figures are the least CPU time of a call in milliseconds: the time of an idle machine, whatever else runs beside.
`two_threads` is the time of day of a call on two threads over that on one, `two_at_once` what sharing at no cost would
give (`threads.py`). int8 contenders run the same Q/DQ network, the one that `optimize --target host` wrote;
`nncf_int8` is OpenVINO with the network that NNCF made of the float one. bfloat16 is measured where the machine has it.
`--peers-python` is an interpreter that has OpenVINO and NNCF: it is measured in a process of its own, in the same
rounds. `squeezenet` has random weights.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...backends.batch import fix_batch
from ...backends.tvm import environment
from ...backends.tvm.compile import compile_model
from ...backends.tvm.load import CompiledModel
from ...driver import optimize
from ...errors import PlanishError
from ...targets.host import resolve
from . import synthetic
from .quantization import PACK
from .threads import Timed, two_threads

Array = npt.NDArray[np.generic]

MODELS = (
    "resnet20_cifar10",
    "resnet8_cifar10",
    "kws_dscnn",
    "mobilenetv2_tf",
    "mobilenetv1_075",
    "lenet_mnist",
)
TRANSFORMERS: Mapping[str, Mapping[str, Sequence[int]]] = {
    "all_minilm_l6_v2": {"input_ids": (1, 32), "attention_mask": (1, 32)},
    "vit_mnist": {},
}
DENSE = ("squeezenet",)
_CPUINFO = Path("/proc/cpuinfo")
_BLOCK_MS = 20.0  # a contender runs about so long in each round


def timed(call: Callable[[], object], clock: Callable[[], float] = time.process_time) -> Timed:
    """`clock`: CPU time of the process, which other work does not add to; the time of day for several threads."""

    def run(count: int) -> list[float]:
        found = []
        for _ in range(count):
            start = clock()
            call()
            found.append((clock() - start) * 1e3)
        return found

    return run


def onnx_runtime(path: Path, feeds: Mapping[str, Array]) -> Timed:
    """ONNX Runtime on one thread, with its buffers bound once as the compiled model's are."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return timed(lambda: session.run_with_iobinding(binding))


@contextlib.contextmanager
def _openvino(python: str, path: Path, feeds: Mapping[str, Array], *options: str) -> Iterator[Timed]:
    """OpenVINO in a process of another interpreter: a count goes in, a line of milliseconds comes back."""
    arguments = Path(path).with_suffix(".npz")
    np.savez(arguments, **feeds)  # type: ignore[arg-type]
    script = Path(__file__).with_name("openvino_peer.py")
    command = [python, str(script), str(path), str(arguments), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        source, sink = process.stdout, process.stdin

        def run(count: int) -> list[float]:
            sink.write(f"{count}\n")
            sink.flush()
            line = source.readline()
            if not line:
                raise PlanishError(
                    f"{python} ended without a measurement",
                    where="openvino_peer.py",
                    hint="install openvino for that interpreter; its message is above",
                )
            found: list[float] = json.loads(line)
            return found

        try:
            yield run
        finally:
            sink.close()


def interleaved(contenders: Mapping[str, Timed], rounds: int) -> dict[str, float]:
    """Least milliseconds of a call of each contender; every round runs all of them, starting with another one."""
    names = list(contenders)
    counts = {name: max(1, int(_BLOCK_MS / min(contenders[name](5)))) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            times[name] += contenders[name](counts[name])
    # the clock of CPU time stands still for a while now and then, and a call inside would take nothing
    return {name: round(min(t for t in times[name] if t > 0), 4) for name in names}


def feeds_for(model: ir.Model) -> dict[str, Array]:
    """Random inputs of a model with static shapes, the same ones every time."""
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        assert value.dtype is not None and value.shape is not None
        shape = [int(str(d)) for d in value.shape]
        drawn = rng.integers(1, 2, shape) if value.dtype.is_integer() else rng.normal(0.3, 0.7, shape)
        feeds[str(value.name)] = drawn.astype(value.dtype.numpy())
    return feeds


def _compile(model: ir.Model, directory: Path, threads: int = 1) -> tuple[Path, CompiledModel, float]:
    """The static model's file, its compiled form, and the seconds that compiling took."""
    static, _ = fix_batch(model)
    environment.load()
    start = time.perf_counter()
    compile_model(static, replace(resolve(None), threads=threads), directory)
    seconds = time.perf_counter() - start
    path = directory / "model.onnx"
    ir.save(static, path)
    return path, CompiledModel(directory / "model.so"), seconds


def measure(
    source: Any, directory: Path, rounds: int, python: str | None, nncf: Sequence[str], **options: Any
) -> dict[str, Any]:
    """One model: seconds of compilation, and the latency of each contender in milliseconds.

    nncf: what NNCF is told about the model; options: of `optimize`.
    """
    quantized = optimize(source, target="host", **options).model
    integer, int8, seconds = _compile(quantized, directory / "int8")
    _, shared, _ = _compile(quantized, directory / "threads", threads=2)
    plain, float32, float_seconds = _compile(optimize(source, level=1, **options).model, directory / "float")
    feeds = feeds_for(ir.load(integer))
    contenders = {
        "planish_int8": timed(int8.bind(**feeds)),
        "planish_float": timed(float32.bind(**feeds)),
        "onnxruntime_int8": onnx_runtime(integer, feeds),
        "onnxruntime_float": onnx_runtime(plain, feeds),
    }
    peers: list[tuple[str, Path, tuple[str, ...]]] = [
        ("openvino_int8", integer, ()),
        ("nncf_int8", plain, ("nncf", *nncf)),
        ("openvino_float", plain, ()),
    ]
    if "bfloat16" in resolve(None).features:
        _, narrow, _ = _compile(optimize(source, precision="bfloat16", **options).model, directory / "bfloat16")
        contenders["planish_bfloat16"] = timed(narrow.bind(**feeds))
        peers.append(("openvino_bfloat16", plain, ("bfloat16",)))
    with contextlib.ExitStack() as stack:
        if python is not None:
            for name, path, extra in peers:
                contenders[name] = stack.enter_context(_openvino(python, path, feeds, *extra))
        found = interleaved(contenders, rounds)
        again = CompiledModel(directory / "int8" / "model.so")
        team, one, other = (timed(m.bind(**feeds), time.perf_counter) for m in (shared, int8, again))
        threads = two_threads(team, one, other, _BLOCK_MS, rounds)
    return {
        "compile_s": round(seconds, 2),
        "compile_float_s": round(float_seconds, 2),
        "ms": found,
        **threads,
    }


def ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Geometric means over the models of ours ÷ a peer's latency in the same precision; below 1 ours is faster."""
    peers = [name for name in rows[0]["ms"] if not name.startswith("planish")]
    return {
        f"planish_{kind} / {peer}_{kind}": round(
            geometric_mean(row["ms"][f"planish_{kind}"] / row["ms"][f"{peer}_{kind}"] for row in rows), 3
        )
        for peer, _, kind in (name.partition("_") for name in peers)
    }


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Bars of every contender, a group a model, on a logarithmic axis."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlanishError("matplotlib is not installed", where="--plot", hint="pip install planish[report]") from error
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.add_subplot()
    names = list(rows[0]["ms"])
    width = 0.8 / len(names)
    for k, name in enumerate(names):
        axes.bar([i + k * width for i in range(len(rows))], [row["ms"][name] for row in rows], width, label=name)
    axes.set_yscale("log")
    axes.set_ylabel("ms of CPU time, least of all calls")
    axes.set_xticks([i + 0.4 - width / 2 for i in range(len(rows))], [row["model"] for row in rows], rotation=15)
    axes.legend(fontsize="small")
    figure.savefig(path)


def machine() -> dict[str, Any]:
    """What the figures depend on: the processor, its features, how busy the machine was, and versions."""
    from importlib.metadata import version

    cpu = [line.partition(":")[2].strip() for line in _CPUINFO.read_text().splitlines() if "model name" in line]
    packages = ("apache-tvm", "onnxruntime", "numpy")
    return {
        "cpu": cpu[0] if cpu else "unknown",
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "features": sorted(resolve(None).features),
        "versions": {package: version(package) for package in packages},
    }


def rows(pack: Path, names: Iterable[str], rounds: int, python: str | None) -> Iterator[dict[str, Any]]:
    """One row for each model."""
    for name in names:
        with tempfile.TemporaryDirectory() as directory:
            for kind in ("int8", "threads", "float", "bfloat16"):
                (Path(directory) / kind).mkdir()
            source, options = _source(pack, name)
            nncf = ("transformer",) if name in TRANSFORMERS else ()
            yield {"model": name, **measure(source, Path(directory), rounds, python, nncf, **options)}


def _source(pack: Path, name: str) -> tuple[Any, dict[str, Any]]:
    """What `optimize` takes for a model: its file and its shapes, or a network of a size and random samples for it."""
    if name not in DENSE:
        return pack / name / "model.onnx", {"shapes": TRANSFORMERS.get(name, {})}
    samples = np.random.default_rng(0).normal(size=(4, 3, 224, 224)).astype(np.float32)
    return synthetic.squeezenet(), {"data": {"image": samples}}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """`ratios` of each kind of model, so that no kind hides another."""
    kinds = {"convolutional": MODELS, "transformers": tuple(TRANSFORMERS), "dense convolutions": DENSE}
    found = {kind: [row for row in rows if row["model"] in names] for kind, names in kinds.items()}
    return {kind: ratios(chosen) for kind, chosen in found.items() if chosen}


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--pack", type=click.Path(exists=True, path_type=Path), default=PACK, help="Directory of the models.")
@click.option("--rounds", default=15, help="How often every contender gets its turn.")
@click.option("--peers-python", help="An interpreter that has OpenVINO.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="A picture of the table (needs matplotlib).")
def main(models: tuple[str, ...], pack: Path, rounds: int, peers_python: str | None, picture: Path | None) -> None:
    found = []
    for row in rows(pack, models or (*MODELS, *TRANSFORMERS, *DENSE), rounds, peers_python):
        found.append(row)
        click.echo(f"{row['model']}: {row['ms']}", err=True)
    table = {"machine": machine(), "rounds": rounds, "models": found, "geometric_means": summary(found)}
    json.dump(table, sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")
    if picture is not None:
        plot(found, picture)


if __name__ == "__main__":
    main()

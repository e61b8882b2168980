"""The CUDA back end on a machine with a GPU, in one command and under 8 minutes: values and latency, as JSON.

    python -m planish.tools.bench.gpu [-o FILE] [--seconds 440] [MODEL.onnx ...]

From a source checkout with the wheels of the extra `cuda`; without models it takes the pack beside the checkout, else
the example. Every model runs in float32, float16 and int8: int8 is compared with the numpy reference for equality of
every bit, floats with ONNX Runtime on the CPU. Latency: medians at batch 1, from tensors on the device to tensors on
the device, waiting included; beside it the float model in torch eager, torch.compile and ONNX Runtime's CUDA provider,
where they are installed. Without a GPU a message says so and nothing is written.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...backends.batch import fix_batch
from ...backends.cuda.compile import compile_model
from ...driver import optimize
from ...errors import PlanishError
from ...ir import reference
from ...ir.execute import Session, execute
from ...ir.feeds import working_feeds
from ...targets.cuda import ARCHITECTURES
from ...targets.registry import resolve
from .cuda_compile import FORMS, SHAPES
from .gpu_model import Driver, GpuModel
from .quantization import PACK

Array = npt.NDArray[np.generic]
Feeds = Mapping[str, Array]

RUNS = 100
_EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.onnx"


@click.command(help=__doc__)
@click.argument("models", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), help="JSON file, written after every model.")
@click.option("--seconds", default=440.0, show_default=True, help="No model is begun after so many.")
@click.option("--architecture", help="Instead of the device's own: sm_80.")
def main(models: Sequence[Path], output: Path | None, seconds: float, architecture: str | None) -> None:
    """Measure, print and write."""
    started = time.monotonic()
    try:
        driver = Driver()
        architecture = architecture or _architecture(driver.capability())
        facts: dict[str, Any] = {"device": driver.name(), "architecture": architecture, "rows": [], "not_reached": []}
    except PlanishError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    paths = list(models) or sorted(PACK.glob("*/model.onnx"), key=lambda path: path.stat().st_size) or [_EXAMPLE]
    for path in paths:
        name = path.parent.name if path.name == "model.onnx" else path.stem
        if time.monotonic() - started > seconds:
            facts["not_reached"].append(name)
            continue
        for row in _rows(driver, name, path, architecture):
            click.echo(json.dumps(row))
            facts["rows"].append(row)
        if output is not None:
            output.write_text(json.dumps(facts | {"seconds": round(time.monotonic() - started)}, indent=1) + "\n")


def _architecture(capability: int) -> str:
    """The newest member that the device runs: its own, or an older one whose PTX its driver translates."""
    fitting = [facts.capability for facts in ARCHITECTURES.values() if facts.capability <= capability]
    if not fitting:
        raise PlanishError(
            f"a GPU of compute capability {capability / 10} is older than any target",
            where="GPU benchmark",
            hint=f"the targets are {', '.join(ARCHITECTURES)}",
        )
    return f"sm_{max(fitting)}"


def _rows(driver: Driver, name: str, path: Path, architecture: str) -> Iterator[dict[str, Any]]:
    for form in ("float32", "float16", "int8"):
        try:
            model = optimize(path, target="cuda", shapes=SHAPES.get(name, {}), **FORMS[form]).model
            static, _ = fix_batch(model)
            feeds = working_feeds(static, Session(static), 0)[0]
            row = {"model": name, "form": form, **_own(driver, static, architecture, feeds, form == "int8")}
            if form != "int8":
                row["peers_ms"] = _peers(static, feeds)
        except (PlanishError, RuntimeError) as error:
            row = {"model": name, "form": form, "error": str(error)[:400]}
        yield row


def _own(driver: Driver, model: ir.Model, architecture: str, feeds: Feeds, integer: bool) -> dict[str, Any]:
    """Values against the reference and latency of our kernels."""
    with tempfile.TemporaryDirectory(prefix="planish-gpu-") as directory:
        compiled = compile_model(model, resolve(f"cuda/{architecture}"), Path(directory))
        on_device = GpuModel(driver, Path(directory) / "model.so", feeds)
        on_device.run()
        got = on_device.outputs()
        want = (reference.run if integer else execute)(model, feeds)
        worst = max(_difference(got[name], array) for name, array in want.items())
        on_device.milliseconds(RUNS // 10)
        times = on_device.milliseconds(RUNS)
        on_device.close()
    equal = all(np.array_equal(got[name], array) for name, array in want.items())
    return {
        "equal_bits": equal,
        "worst_difference": worst,
        "ms": median(times),
        "compile_seconds": round(compiled.seconds, 1),
        "kernels": len(json.loads(compiled.files["kernels.json"])),
    }


def _difference(got: Array, want: Array) -> float:
    """The largest difference, relative to the largest number."""
    gap = np.abs(got.astype(np.float64) - want.astype(np.float64)).max(initial=0.0)
    return float(gap / max(np.abs(want.astype(np.float64)).max(initial=0.0), 1e-30))


def _peers(model: ir.Model, feeds: Feeds) -> dict[str, float | str]:
    """Median milliseconds of each peer, or why it did not run."""
    found: dict[str, float | str] = {}
    for name, peer in (("torch eager", _torch), ("torch.compile", _torch_compile), ("onnxruntime cuda", _onnxruntime)):
        try:
            call = peer(model, feeds)
            for _ in range(RUNS // 10):
                call()
            times = []
            for _ in range(RUNS):
                start = time.perf_counter()
                call()
                times.append((time.perf_counter() - start) * 1e3)
            found[name] = median(times)
        except Exception as error:  # a peer that is not there or does not take the model
            found[name] = f"{type(error).__name__}: {str(error)[:160]}"
    return found


def _torch(model: ir.Model, feeds: Feeds, compiled: bool = False) -> Callable[[], object]:
    import torch

    from ...ir.fx import to_fx

    bridge = to_fx(model, trainable=False)
    module = bridge.module.cuda().eval()
    inputs = [torch.from_numpy(np.ascontiguousarray(feeds[name])).cuda() for name in bridge.inputs]
    function = torch.compile(module) if compiled else module

    def call() -> None:
        with torch.inference_mode():
            function(*inputs)
        torch.cuda.synchronize()

    return call


def _torch_compile(model: ir.Model, feeds: Feeds) -> Callable[[], object]:
    return _torch(model, feeds, compiled=True)


def _onnxruntime(model: ir.Model, feeds: Feeds) -> Callable[[], object]:
    import onnxruntime as ort

    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise RuntimeError("onnxruntime-gpu is not installed")
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CUDAExecutionProvider"])
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")
    return lambda: session.run_with_iobinding(binding)


if __name__ == "__main__":
    main()

"""Peak memory of `optimize` on a model larger than memory should hold: prints JSON with the peak and its bound.

    python -m planish.tools.bench.memory --gib 2.5 --tensors 10

The weights are external data in a file of holes (each tensor starts with a few numbers of its own), so making the
model takes no time and no disk; the optimized copy is written in full.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import onnx_ir as ir

__all__ = ["main", "make_model", "measure"]

_MIB = 1 << 20
_ALLOWANCE = 500 * _MIB  # Python, ONNX Runtime and the libraries of the passes
_HEAD = 1024  # numbers of each tensor that are not zero


def make_model(directory: Path, tensors: int, size: int) -> Path:
    """A perceptron with `tensors` square float32 weights of about `size` bytes each, stored as external data.

    Between the products stand the nodes a clean-up removes: Identity, a Reshape that changes nothing, a dead branch.
    """
    width = int((size / 4) ** 0.5) // 64 * 64
    length = width * width * 4
    data = directory / "weights.bin"
    rng = np.random.default_rng(0)
    with data.open("wb") as file:
        file.truncate(tensors * length)
        for i in range(tensors):
            file.seek(i * length)
            file.write(rng.normal(size=_HEAD).astype(np.float32).tobytes())
    rows = ["shape = Constant <value_ints = [-1, WIDTH]> ()"]
    for i in range(tensors):
        rows += [
            f"p{i} = MatMul (x{i}, w{i})",
            f"same{i} = Identity (p{i})",
            f"flat{i} = Reshape (same{i}, shape)",
            f"dead{i} = Neg (p{i})",
            f"x{i + 1} = Relu (flat{i})",
        ]
    weights = ", ".join(f"float[WIDTH, WIDTH] w{i}" for i in range(tensors))
    text = (
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        f"perceptron (float[1, WIDTH] x0, {weights}) => (float[1, WIDTH] x{tensors})\n{{\n" + "\n".join(rows) + "\n}"
    )
    model = ir.from_onnx_text(text.replace("WIDTH", str(width)))
    values = list(model.graph.inputs[1:])
    del model.graph.inputs[1:]
    for i, value in enumerate(values):
        value.const_value = ir.ExternalTensor(
            data.name,
            i * length,
            length,
            ir.DataType.FLOAT,
            name=f"w{i}",
            shape=ir.Shape([width, width]),
            base_dir=directory,
        )
        model.graph.register_initializer(value)
    path = directory / "model.onnx"
    ir.save(model, path)
    return path


def measure(model: Path, output: Path, *options: str) -> dict[str, float]:
    """Peak resident memory in MiB and seconds of `optimize MODEL -o OUTPUT OPTIONS` in a process of its own."""
    command = [sys.executable, "-m", "planish.tools.optimize", str(model), "-o", str(output), "--quiet", *options]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"optimize ended with exit code {process.returncode}")
    return {"peak_mib": round(usage.ru_maxrss / 1024, 1), "seconds": round(time.perf_counter() - start, 1)}


@click.command(context_settings={"show_default": True})
@click.option("--gib", type=float, default=2.5, help="Size of all weights.")
@click.option("--tensors", type=int, default=10, help="Number of weights.")
@click.option("--options", default="-O1 --no-compile", help="Options of optimize.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where the files go  [default: a temporary one]")
def main(gib: float, tensors: int, options: str, directory: Path | None) -> None:
    """Measure the peak memory of one run of optimize on a generated model."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        path = make_model(Path(place), tensors, int(gib * 1024 * _MIB / tensors))
        total = (Path(place) / "weights.bin").stat().st_size
        result = measure(path, Path(place) / "out", *options.split())
    bound = 3 * total / tensors + _ALLOWANCE
    facts = {
        "model_mib": round(total / _MIB, 1),
        "largest_tensor_mib": round(total / tensors / _MIB, 1),
        "bound_mib": round(bound / _MIB, 1),
        "within_bound": result["peak_mib"] * _MIB <= bound,
        "options": options,
    }
    print(json.dumps({**facts, **result}, indent=2))


if __name__ == "__main__":
    main()

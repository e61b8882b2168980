"""What tuning buys on this machine: int8 models untuned and tuned beside ONNX Runtime int8, one thread, as JSON.

    python -m planish.tools.bench.tuning [--time 10m] [--rounds N] [--tuning-db DIR] [MODEL ...]

Each model is tuned for at most `--time` with a database of its own unless one is given. All contenders run the same
Q/DQ network and have their turn in every round; figures are in milliseconds, taken as `latency.py` does.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import click
import onnx_ir as ir

from ...backends.batch import fix_batch
from ...backends.tvm import environment
from ...backends.tvm.compile import compile_model
from ...backends.tvm.load import CompiledModel
from ...backends.tvm.tuning.compile import Request, compile_tuned
from ...driver import optimize
from ...targets.host import resolve
from ..optimize import Duration
from .latency import MODELS, feeds_for, interleaved, machine, onnx_runtime, timed
from .quantization import PACK

_RATIOS = (
    ("tuned / untuned", "tuned", "untuned"),
    ("untuned / onnxruntime int8", "untuned", "onnxruntime_int8"),
    ("tuned / onnxruntime int8", "tuned", "onnxruntime_int8"),
)


def measure(source: Path, scratch: Path, seconds: float, rounds: int, database: Path | None) -> dict[str, Any]:
    """One model: medians of each contender, and the account of the search."""
    static, _ = fix_batch(optimize(source, target="host").model)
    environment.load()
    path = scratch / "model.onnx"
    ir.save(static, path)
    target = resolve(None)
    compile_model(static, target, scratch / "untuned")
    request = Request(None, seconds, database or scratch / "database")
    found = compile_tuned(static, target, scratch / "tuned", request).tuning
    assert found is not None
    feeds = feeds_for(static)
    contenders = {
        name: timed(CompiledModel(scratch / name / "model.so").bind(**feeds)) for name in ("untuned", "tuned")
    }
    contenders["onnxruntime_int8"] = onnx_runtime(path, feeds)
    workloads = found["workloads"]
    better = [row for row in workloads if row["config"] != row["default"]]
    search = {key: found[key] for key in ("cost", "trials", "seconds", "stopped", "kept", "notes")}
    search |= {"workloads": len(workloads), "workloads_with_another_config": len(better)}
    search |= {key: found[key] * 1e3 for key in ("kernels_untuned", "kernels_tuned")}
    return {"ms": interleaved(contenders, rounds), "search": search}


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Geometric means over the models; below 1 the first is faster."""
    return {name: round(geometric_mean(row["ms"][a] / row["ms"][b] for row in rows), 3) for name, a, b in _RATIOS}


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--pack", type=click.Path(exists=True, path_type=Path), default=PACK, help="Directory of the models.")
@click.option("--time", "seconds", type=Duration(), default="10m", help="Time of a search.")
@click.option("--rounds", default=15, help="How often every contender gets its turn.")
@click.option("--tuning-db", type=click.Path(path_type=Path), help="A database to read and to add to.")
def main(models: Sequence[str], pack: Path, seconds: float, rounds: int, tuning_db: Path | None) -> None:
    rows = []
    for name in models or MODELS:
        with tempfile.TemporaryDirectory() as scratch:
            row = measure(pack / name / "model.onnx", Path(scratch), seconds, rounds, tuning_db)
        rows.append({"model": name, **row})
        click.echo(f"{name}: {row['ms']}, {row['search']['trials']} trials", err=True)
    table = {"cost": "local time", "machine": machine(), "models": rows, "geometric_means": ratios(rows)}
    json.dump(table, sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()

"""Data-free int8 on the model pack: metric in float and after the passes, drop, SQNR of the outputs, as JSON lines.

    python -m planish.tools.bench.quantization [--target arm64] [--passes TEXT] [--limit N] [MODEL ...]

Without `--passes` the default int8 pipeline follows the clean-up; `--passes ""` measures the clean-up alone.

The pack's own `evaluate.py` measures; its data is never an input to the passes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import onnx_ir as ir

from ...errors import PlanishError
from ...passes.context import Context
from ...passes.defaults import exact, int8
from ...passes.manager import PassManager
from ...targets.registry import resolve

PACK = Path(__file__).resolve().parents[2] / ".." / "shared" / "models"


def load_evaluate(pack: Path) -> ModuleType:
    """The pack's evaluate.py as a module."""
    spec = importlib.util.spec_from_file_location("pack_evaluate", pack / "evaluate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metric(evaluate: ModuleType, path: Path, task: str, limit: int) -> dict[str, Any]:
    """What `evaluate.py --model path --task task --limit limit` prints."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    result: dict[str, Any] = evaluate.TASKS[task](session, limit)
    return result


def optimized(path: Path, target: str, passes: str | None, seed: int) -> tuple[ir.Model, dict[str, Any]]:
    """The model after clean-up and the passes (data-free int8 when None), and the account of it."""
    model = ir.load(path)
    context = Context(target=resolve(target), seed=seed)
    PassManager(exact()).run(model, context)
    start = time.perf_counter()
    manager = PassManager(int8() if passes is None else passes)
    records = manager.run(model, context).records
    account: dict[str, Any] = {"passes": manager.spec(), "seconds": round(time.perf_counter() - start, 2)}
    by_name = {record.pass_name: record for record in records}
    if inputs := by_name.get("synthesize-inputs"):
        account["input"] = [c.detail for c in inputs.changes] or [s.reason for s in inputs.skips]
    if kept := by_name.get("keep-float"):
        account |= {"predicted_sqnr": kept.measures.get("predicted_sqnr"), "kept_float": kept.changed}
    if done := by_name.get("quantize"):
        account |= {"integer_nodes": done.changed} | dict(done.measures)
        account["float_nodes"] = dict(sorted(done.skipped.items(), key=lambda item: -item[1])[:8])
    return model, account | {"notes": [n for r in records for n in r.notes]}


def rows(
    pack: Path, names: Iterable[str], target: str, passes: str | None, limit: int, seed: int
) -> Iterable[dict[str, Any]]:
    """One row a model: metric in float and after the passes, and how it came about."""
    evaluate = load_evaluate(pack)
    chosen = set(names)
    for entry in json.loads((pack / "MODELS.json").read_text()):
        name = str(entry["name"])
        if chosen and name not in chosen:
            continue
        row: dict[str, Any] = {"model": name, "target": target, "task": entry["task"]}
        path = pack / name / "model.onnx"
        try:
            model, account = optimized(path, target, passes, seed)
            row |= account
            with tempfile.TemporaryDirectory() as directory:
                result = Path(directory) / "model.onnx"
                ir.save(model, result)
                before = metric(evaluate, path, entry["task"], limit)
                after = metric(evaluate, result, entry["task"], limit)
            row["metric"] = next(iter(before))
            row |= {"float": before[row["metric"]], "result": after[row["metric"]]}
            row["drop"] = round(row["float"] - row["result"], 4)
        except PlanishError as error:
            row["error"] = str(error)
        yield row


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--pack", type=click.Path(exists=True, path_type=Path), default=PACK, help="Directory of the models.")
@click.option("--target", default="arm64")
@click.option("--passes", help="Pipeline text that follows the clean-up, in place of data-free int8.")
@click.option("--limit", default=0, help="Samples per model; 0 for all.")
@click.option("--seed", default=0)
def main(models: tuple[str, ...], pack: Path, target: str, passes: str | None, limit: int, seed: int) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    for row in rows(pack, models, target, passes, limit, seed):
        json.dump(row, sys.stdout, ensure_ascii=False)
        sys.stdout.write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

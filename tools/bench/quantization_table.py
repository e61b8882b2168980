"""Our pipelines and other tools' int8 on the model pack in one table: docs/results/quantization.json, and its plot.

    python -m planish.tools.bench.quantization_table [--method NAME ...] [--limit N] [--nncf PYTHON]
        [--checkpoints DIR] [MODEL ...]
    python -m planish.tools.bench.quantization_table --plot

A row that is measured again takes the old one's place. The pack's data judges; only the methods with "64 samples" see
some of it, and not what they are judged on where there is enough. NNCF runs in the interpreter given. A row that was
interrupted goes on from what it left in the directory of checkpoints.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import onnx_ir as ir

from ...errors import PlanishError
from ...passes.context import Context
from ...passes.defaults import exact, few_bits, int8
from ...passes.manager import PassManager
from ...passes.registry import spec
from ...targets.registry import resolve
from . import peers
from .quantization import PACK, load_evaluate, metric
from .recorded import recorded
from .staged import run_staged

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "quantization.json"
_SAMPLES = 64  # that calibrate, of noise or of the data
# ours: method -> pipeline behind the clean-up; None is the default one
OURS: dict[str, str | None] = {
    "int8": None,
    "int8, 64 samples": None,
    "int8, one scale per tensor": "synthesize-inputs,equalize{clips=true},activation-ranges,"
    "quantize{granularity=tensor clipping=mse rounding=squant}",
    "dynamic": "quantize-weights{activations=dynamic}",
    "4-bit weights": "quantize-weights{weights=int4 group=32}",
    "W4A8": spec(few_bits("int4")),
    "W4A4": spec(few_bits("int4", "int4")),
    "W3A3": spec(few_bits("int3", "int3")),
}
PEERS = ("ONNX Runtime, noise", "NNCF, noise", "ONNX Runtime, 64 samples", "NNCF, 64 samples")
# methods that only some models are judged by
_ONLY = {
    "int8, one scale per tensor": {"mobilenetv2_tf"},
    "dynamic": {"nsnet2", "dtln_1", "dtln_2", "all_minilm_l6_v2"},
    "4-bit weights": {"all_minilm_l6_v2"},
    "W4A8": {"mobilenetv2_tf", "mobilenetv1_075"},
    "W4A4": {"resnet20_cifar10"},
    "W3A3": {"resnet20_cifar10"},
}
# what is judged on another file and task than the model's own: with BatchNorm, on the many pictures of the JPEG set
_JUDGED: dict[str, tuple[str, str]] = dict.fromkeys(("W4A4", "W3A3"), ("model_bn.onnx", "cifar10_jpeg"))


def run(
    evaluate: ModuleType,
    entry: Mapping[str, Any],
    method: str,
    limit: int,
    nncf: Path | None = None,
    checkpoints: Path | None = None,
) -> dict[str, Any] | None:
    """One row; None where the method does not apply."""
    name, task = str(entry["name"]), str(entry["task"])
    if name not in _ONLY.get(method, {name}) or (method.startswith("NNCF") and nncf is None):
        return None
    file, task = _JUDGED.get(method, ("model.onnx", task))
    path = PACK / name / file
    row: dict[str, Any] = {"model": name, "method": method}
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "model.onnx"
        start = time.perf_counter()
        try:
            samples = recorded(evaluate, path, task, _SAMPLES) if method.endswith("samples") else None
            start = time.perf_counter()
            if method in OURS:
                row |= _ours(path, OURS[method], samples, result, checkpoints)
            else:
                feeds = samples if samples is not None else peers.noise(path, _SAMPLES)
                if method.startswith("NNCF"):
                    peers.nncf(path, feeds, result, nncf or Path(sys.executable))
                else:
                    peers.onnxruntime(path, feeds, result)
            row.setdefault("seconds", round(time.perf_counter() - start, 2))
            before, after = (metric(evaluate, p, task, limit) for p in (path, result))
        except Exception as error:  # a peer that fails on a model is a result
            what = error.what if isinstance(error, PlanishError) else f"{type(error).__name__}: {error}"
            return row | {"error": what[:300]}
    key = next(iter(before))
    drop = round(before[key] - after[key], 4)
    return row | {"metric": key, "float": before[key], "result": after[key], "drop": drop, "limit": limit}


def _ours(
    path: Path, passes: str | None, samples: Sequence[Any] | None, result: Path, checkpoints: Path | None
) -> dict[str, Any]:
    model = ir.load(path)
    context = Context(target=resolve("arm64"), data=samples, original=model.clone())
    pipeline = PassManager([*exact(), *(int8() if passes is None else [passes]), "predict-fidelity"]).passes
    records, seconds = run_staged(pipeline, model, context, checkpoints, str(path))
    ir.save(model, result)
    measures = {k: v for record in records for k, v in record.measures.items()}
    outputs = measures.get("prediction", {}).get("outputs", [])
    inputs = [c.detail for r in records if r.pass_name == "synthesize-inputs" for c in r.changes]
    integer = next((r.changed for r in records if r.pass_name == "quantize"), 0)
    facts = {"inputs": inputs, "integer_nodes": integer, "predicted": outputs[:2]}
    return facts | {"seconds": round(seconds, 2)}


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """What share of the float metric each method keeps, a group of bars for each model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = list(dict.fromkeys(r["model"] for r in rows))
    methods = [m for m in (*OURS, *PEERS) if any(r["method"] == m for r in rows) and m not in _ONLY]
    figure, axes = pyplot.subplots(figsize=(14, 5))
    for number, method in enumerate(methods):
        kept = {r["model"]: max(r["result"] / r["float"], 0) for r in rows if r["method"] == method and "result" in r}
        at = [i + (number - len(methods) / 2) / (len(methods) + 1) for i in range(len(models))]
        axes.bar(at, [kept.get(m, 0.0) for m in models], 1 / (len(methods) + 1), label=method)
    axes.set_xticks(range(len(models)), models, rotation=30, ha="right")
    axes.set_ylabel("metric after / float (none: the tool failed)")
    axes.legend(fontsize=8, ncols=3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--method", "methods", multiple=True, type=click.Choice([*OURS, *PEERS]), help="Only these methods.")
@click.option("--limit", default=0, help="Samples to judge on; 0 for all.")
@click.option("--nncf", type=click.Path(exists=True, path_type=Path), help="Interpreter that has NNCF.")
@click.option("--checkpoints", type=click.Path(path_type=Path), help="Directory that an interrupted row goes on from.")
@click.option("--plot", "drawing", is_flag=True, help="Only draw what has been measured.")
def main(
    models: tuple[str, ...],
    methods: tuple[str, ...],
    limit: int,
    nncf: Path | None,
    checkpoints: Path | None,
    drawing: bool,
) -> None:
    if drawing:
        plot(json.loads(RESULTS.read_text()), RESULTS.with_suffix(".png"))
        return
    evaluate = load_evaluate(PACK)
    for entry in json.loads((PACK / "MODELS.json").read_text()):
        if models and entry["name"] not in models:
            continue
        for method in methods or (*OURS, *PEERS):
            row = run(evaluate, entry, method, limit, nncf, checkpoints)
            if row is None:
                continue
            rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
            rows = [r for r in rows if (r["model"], r["method"]) != (row["model"], row["method"])] + [row]
            RESULTS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
            json.dump(row, sys.stdout, ensure_ascii=False)
            sys.stdout.write("\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

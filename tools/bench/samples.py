"""What 64 real samples buy over data-free int8: SQNR of the outputs on other real data; docs/results/samples.json.

    python -m planish.tools.bench.samples [MODEL ...]     measure, add to the file
    python -m planish.tools.bench.samples --judge         how many models are within 0.5 dB

Both models come from the default pipeline; the samples of the second are not among those that both are judged on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import onnx_ir as ir

from ...ir.execute import Session
from ...passes.context import Context
from ...passes.defaults import exact, int8
from ...passes.manager import PassManager
from ...passes.quantize.sensitivity import decibels, power
from ...targets.registry import resolve
from .quantization import PACK, load_evaluate
from .recorded import recorded

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "samples.json"
_SEEN, _JUDGED = 64, 48
_WITHIN_DB = 0.5
_EXACT_DB = 150.0  # an output that no rounding reaches says nothing
_LARGEST_SIDE = 96  # pixels a side that are cut out of larger pictures where a model takes any size

Feeds = Sequence[Mapping[str, Any]]


def parted(evaluate: ModuleType, path: Path, task: str) -> tuple[Feeds, Feeds]:
    """Samples to calibrate on and others to judge on: half of them each where there are too few; of a single long
    recording its first and its second half.
    """
    feeds: list[Mapping[str, Any]] = list(recorded(evaluate, path, task, _SEEN + _JUDGED))
    if len(feeds) == 1:
        ((name, array),) = feeds[0].items()
        half = array.shape[1] // 2
        return [{name: array[:, :half]}], [{name: array[:, half : 2 * half]}]
    first = _SEEN if len(feeds) >= _SEEN + _JUDGED // 2 else len(feeds) // 2
    return feeds[:first], feeds[first:]


def cut(model: ir.Model, feeds: Feeds) -> Feeds:
    """The middle of pictures that a model takes in any size."""
    value = model.graph.inputs[0]
    if value.shape is None or len(value.shape) != 4 or isinstance(value.shape[2], int):
        return feeds
    found = []
    for feed in feeds:
        array = feed[str(value.name)]
        starts = [max((size - _LARGEST_SIDE) // 2, 0) for size in array.shape[2:]]
        middle = tuple(slice(s, s + _LARGEST_SIDE) for s in starts)
        found.append({str(value.name): array[(slice(None), slice(None), *middle)]})
    return found


def measure(evaluate: ModuleType, name: str, task: str) -> dict[str, Any]:
    """One row: SQNR in dB, the mean over outputs that rounding reaches, without data and with the samples."""
    path = PACK / name / "model.onnx"
    base = ir.load(path)
    seen, judged = (cut(base, feeds) for feeds in parted(evaluate, path, task))
    PassManager(exact()).run(base, Context(target=resolve("arm64")))
    run = Session(base)
    expected = [run(feed) for feed in judged]
    found = {}
    for kind, data in (("data-free", None), ("samples", seen)):
        model = base.clone()
        PassManager(int8()).run(model, Context(target=resolve("arm64"), data=data))
        run = Session(model)
        made = [run(feed) for feed in judged]
        found[kind] = {n: decibels(power([e[n] for e in expected], [m[n] for m in made])) for n in expected[0]}
    reached = [n for n in expected[0] if min(found[kind][n] for kind in found) < _EXACT_DB]
    row: dict[str, Any] = {"model": name, "seen": len(seen), "judged": len(judged)}
    if not reached:
        return row | {"note": "all of it stays in float"}
    mean = {kind: round(float(np.mean([min(of[n], _EXACT_DB) for n in reached])), 2) for kind, of in found.items()}
    return row | mean | {"gain_of_samples": round(mean["samples"] - mean["data-free"], 2)}


def judge(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    gains = {r["model"]: r["gain_of_samples"] for r in rows if "gain_of_samples" in r}
    within = [name for name, gain in gains.items() if gain <= _WITHIN_DB]
    return {"models": len(gains), "within_0.5_dB": len(within), "share": round(len(within) / max(len(gains), 1), 3)}


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--judge", "judging", is_flag=True, help="Only judge what has been measured.")
def main(models: tuple[str, ...], judging: bool) -> None:
    if not judging:
        evaluate = load_evaluate(PACK)
        for entry in json.loads((PACK / "MODELS.json").read_text()):
            if models and entry["name"] not in models:
                continue
            row = measure(evaluate, str(entry["name"]), str(entry["task"]))
            rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
            rows = [r for r in rows if r["model"] != row["model"]] + [row]
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    sys.stdout.write(json.dumps(judge(json.loads(RESULTS.read_text()))) + "\n")


if __name__ == "__main__":
    main()

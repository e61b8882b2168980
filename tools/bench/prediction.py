"""Predicted against measured fidelity on the model pack, per output and per layer; the plot; the constants.

    python -m planish.tools.bench.prediction [MODEL ...]      measure, add to docs/results/prediction.json
    python -m planish.tools.bench.prediction --outputs [MODEL ...]      only outputs; layers as measured before
    python -m planish.tools.bench.prediction --judge          leave-one-out errors and the plot from that file
    python -m planish.tools.bench.prediction --fit            write passes/quantize/calibration.json from it

Predictions are made on synthesised inputs; the pack's data only measures. A model is judged with constants that are
fitted on the other models.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.cost import summary
from ...ir.execute import Session
from ...passes.context import Context
from ...passes.defaults import exact, int8
from ...passes.manager import PassManager
from ...passes.quantize.calibration import predicted
from ...passes.quantize.predict_fidelity import changed, observed_db
from ...passes.quantize.sensitivity import Noise, decibels, few_feeds, few_samples
from ...targets.registry import resolve
from .quantization import PACK, load_evaluate
from .recorded import recorded

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results" / "prediction.json"
CALIBRATION = ROOT / "passes" / "quantize" / "calibration.json"
_RANGES = "synthesize-inputs,activation-ranges"
# setting -> pipeline behind the clean-up; None is the default one
SETTINGS: dict[str, str | None] = {
    "W8A8": None,
    "W8A8, one scale per tensor": f"{_RANGES},quantize{{granularity=tensor}}",
    "W4A8": f"{_RANGES},quantize{{weights=int4 clipping=mse rounding=squant}}",
    "W8A4-like": "synthesize-inputs,activation-ranges{margin=18.7 deep=34 expected=inf},quantize",  # 17 times coarser
    "W4 weights only": "synthesize-inputs,quantize-weights{weights=int4 method=nearest}",
}
_LAYERED = ("W8A8", "W4A8")
_SAMPLES = 64  # real ones that the "samples" rows are calibrated on
_FEWEST_LAYERS = 4  # of which an order can be asked
_QUICK_MACS = 1e8  # a model below it is measured layer by layer on more samples
_LARGEST_PICTURE = 64  # pixels a side that are cut out where a model takes any size and is measured layer by layer
_EXACT_DB = 150.0  # an output that no rounding reaches says nothing

Feeds = Sequence[Mapping[str, Any]]


def measure(
    evaluate: ModuleType, name: str, task: str, held: int, settings: Sequence[str] = (), layered: bool = True
) -> list[dict[str, Any]]:
    """One row a setting, with synthesised inputs, and for the integer ones a second with 64 real samples; layered: also
    layer by layer.
    """
    path = PACK / name / "model.onnx"
    real, seen = recorded(evaluate, path, task, held, skip=_SAMPLES), recorded(evaluate, path, task, _SAMPLES)
    base = ir.load(path)
    real, seen = (_cut(base, feeds) for feeds in (real, seen))
    PassManager(exact()).run(base, Context(target=resolve("arm64")))
    rows = []
    for setting, passes in SETTINGS.items():
        if settings and setting not in settings:
            continue
        for data in (None, seen) if setting in _LAYERED else (None,):
            model, context = base.clone(), Context(target=resolve("arm64"), data=data)
            PassManager(int8() if passes is None else passes).run(model, context)
            feeds = list(context.data or context.synthetic or ())
            if not feeds:
                break
            row: dict[str, Any] = {"model": name, "setting": setting, "inputs": "samples" if data else "synthetic"}
            row["outputs"] = _outputs(base, model, few_feeds(feeds, 6), real, bool(data))
            if layered and data is None and setting in _LAYERED:
                row["layers"] = _layers(base, model, feeds, real)
            rows.append(row)
    return rows


def _outputs(
    before: ir.Model, after: ir.Model, feeds: Feeds, real: Feeds, seen: bool
) -> dict[str, dict[str, float | None]]:
    """seen: the feeds are real samples too."""
    sessions = Session(before), Session(after)
    found: dict[str, dict[str, float | None]] = {}
    for kind, inputs in (("observed", feeds), ("measured", real)):
        results = [[session(feed) for feed in inputs] for session in sessions]
        for name in results[0][0]:
            exact_, rounded = ([r[name] for r in result] for result in results)
            numbers = found.setdefault(name, {})
            numbers[kind] = round(observed_db(exact_, rounded, seen or kind == "measured"), 2)
            numbers[f"{kind}_changed"] = changed(exact_, rounded)
    return {name: numbers for name, numbers in found.items() if _reached(numbers)}


def _cut(model: ir.Model, feeds: Feeds) -> list[dict[str, Any]]:
    """The middle of pictures that a model takes in any size; other feeds as they are."""
    value = model.graph.inputs[0]
    free = value.shape is not None and len(value.shape) == 4 and not isinstance(value.shape[2], int)
    middle = slice(_LARGEST_PICTURE // 2, _LARGEST_PICTURE // 2 + _LARGEST_PICTURE)
    if not free or min(feeds[0][str(value.name)].shape[2:]) < 2 * _LARGEST_PICTURE:
        return [dict(feed) for feed in feeds]
    return [{name: array[:, :, middle, middle] for name, array in feed.items()} for feed in feeds]


def _reached(numbers: dict[str, float | None]) -> bool:
    return max(numbers["observed"] or 0.0, numbers["measured"] or 0.0) < _EXACT_DB


def _layers(before: ir.Model, after: ir.Model, feeds: Feeds, real: Feeds) -> dict[str, tuple[float, float]]:
    """Layer -> SQNR in dB of its noise alone, on synthesised and on real inputs."""
    count = 12 if summary(before).macs < _QUICK_MACS else 2
    alone = [Noise(after, before, few_samples(before, f, count)).by_layer() for f in (feeds, real)]
    return {n: tuple(round(decibels(max(a[n].values())), 2) for a in alone) for n in alone[0]}  # type: ignore[misc]


def fit(rows: Sequence[dict[str, Any]], inputs: str) -> dict[str, float]:
    """Offsets: median over models of measured − observed, 0 where that is within two standard errors; of scores and of
    other outputs; error: two thirds of the rest are within; rate of decisions that change for each unit of noise
    amplitude; factor: five of six models change less than rate · factor.
    """
    chosen = [r for r in rows if r["inputs"] == inputs and r["outputs"]]
    kinds = {"offset_db": [r for r in chosen if not _decides(r)], "scores_db": [r for r in chosen if _decides(r)]}
    offsets = {key: _offset(of_kind) for key, of_kind in kinds.items()}
    left = [_differences(of_kind) - offsets[key] for key, of_kind in kinds.items()]
    error = float(np.quantile(np.abs(np.concatenate(left)), 0.68))
    scores = [n for r in chosen for n in r["outputs"].values() if n["measured_changed"] is not None]
    amplitude = np.array([10 ** (-(n["observed"] + offsets["scores_db"]) / 20) for n in scores])
    flips = np.array([n["measured_changed"] for n in scores])
    rate = float(flips.sum() / np.minimum(amplitude, 2).sum()) if len(scores) else 0.5
    factor = float(np.quantile(flips / (rate * amplitude), 5 / 6)) if len(scores) else 2.0
    found = offsets | {"error_db": error, "flip_rate": rate, "flip_factor": max(factor, 1.0)}
    return {name: round(value, 3) for name, value in found.items()}


def _decides(row: dict[str, Any]) -> bool:
    return any(n["measured_changed"] is not None for n in row["outputs"].values())


def _offset(rows: Sequence[dict[str, Any]]) -> float:
    typical = np.array([np.median(_differences(r for r in rows if r["model"] == m)) for m in _models(rows)])
    if len(typical) < 2 or abs(np.median(typical)) <= 2 * typical.std(ddof=1) / np.sqrt(len(typical)):
        return 0.0
    return float(np.median(typical))


def _models(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(r["model"] for r in rows))


def _differences(rows: Iterable[dict[str, Any]]) -> npt.NDArray[np.float64]:
    """Measured − observed SQNR in dB of every row, the mean over its outputs."""
    return np.array([np.mean([n["measured"] - n["observed"] for n in r["outputs"].values()]) for r in rows])


def judge(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Errors of predictions for each model from constants of the others."""
    points, ranks = [], {}
    for row in rows:
        if row["inputs"] != "synthetic" or not row["outputs"]:
            continue
        others = [r for r in rows if r["model"] != row["model"]]
        points.append(_point(row, {"synthetic": fit(others, "synthetic")}))
        if len(row.get("layers", {})) > _FEWEST_LAYERS:
            ranks[f"{row['model']}, {row['setting']}"] = round(spearman(list(row["layers"].values())), 3)
    errors = np.array([abs(p["predicted"] - p["measured"]) for p in points])
    scored = [p for p in points if "least" in p]
    missed = [abs(p["agreement"] - p["measured_agreement"]) for p in scored]
    figures = {
        "median_error_db": np.median(errors),
        "within_error_bar": np.mean(errors <= [p["error"] for p in points]),
        "median_agreement_error": np.median(missed),
        "agreement_at_least_as_said": np.mean([p["measured_agreement"] >= p["least"] for p in scored]),
        "median_layer_spearman": np.median(list(ranks.values())),
    }
    return {k: round(float(v), 4) for k, v in figures.items()} | {"layer_spearman": ranks, "points": points}


def _point(row: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """Prediction and measurement of one row, the mean over its outputs; agreement of the first that has decisions."""
    numbers = list(row["outputs"].values())
    made = [predicted("", n["observed"], n["observed_changed"], False, table) for n in numbers]
    point: dict[str, Any] = {"model": row["model"], "setting": row["setting"]}
    means = {"predicted": [p.sqnr_db for p in made], "measured": [n["measured"] for n in numbers]}
    means["error"] = [p.error_db for p in made]
    point |= {key: round(float(np.mean(values)), 3) for key, values in means.items()}
    for p, n in zip(made, numbers, strict=True):
        if n["measured_changed"] is not None and p.agreement is not None and p.least is not None:
            point |= {"agreement": round(p.agreement, 4), "least": round(p.least, 4)}
            return point | {"measured_agreement": round(1 - n["measured_changed"], 4)}
    return point


def spearman(pairs: Sequence[Sequence[float]]) -> float:
    """Rank correlation; ties share their mean rank."""
    ranks = []
    for values in np.asarray(pairs, np.float64).T:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        ranks.append((ends - (counts - 1) / 2)[inverse])
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def draw(rows: Sequence[dict[str, Any]], verdict: dict[str, Any], path: Path) -> None:
    """Scatter of outputs (each model with the constants of the others) beside that of layers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5.5))
    for setting in SETTINGS:
        chosen = [p for p in verdict["points"] if p["setting"] == setting]
        x, y = ([p[key] for p in chosen] for key in ("predicted", "measured"))
        left.errorbar(x, y, xerr=[p["error"] for p in chosen], fmt="o", label=setting, alpha=0.8)
    layers = np.array([pair for r in rows for pair in r.get("layers", {}).values() if max(pair) < _EXACT_DB])
    right.plot(layers[:, 0], layers[:, 1], ".", alpha=0.4)
    left.set_title(f"outputs: median error {verdict['median_error_db']} dB, leave one out")
    right.set_title(f"layers alone: median Spearman {verdict['median_layer_spearman']}")
    for axes in (left, right):
        low, high = axes.get_xlim()
        axes.plot([low, high], [low, high], "k:", linewidth=1)
        axes.set_xlabel("predicted SQNR, dB")
        axes.set_ylabel("measured SQNR on real data, dB")
    left.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--held", default=24, help="Real samples to measure on.")
@click.option("--setting", "settings", multiple=True, type=click.Choice(list(SETTINGS)), help="Only these settings.")
@click.option("--outputs", "flat", is_flag=True, help="Measure outputs alone; layers stay as measured before.")
@click.option("--judge", "judging", is_flag=True, help="Only judge what has been measured.")
@click.option("--fit", "fitting", is_flag=True, help="Only fit the constants to what has been measured.")
def main(
    models: tuple[str, ...], held: int, settings: tuple[str, ...], flat: bool, judging: bool, fitting: bool
) -> None:
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    if not judging and not fitting:
        evaluate = load_evaluate(PACK)
        for entry in json.loads((PACK / "MODELS.json").read_text()):
            if models and entry["name"] not in models:
                continue
            rows = measure(evaluate, entry["name"], entry["task"], held, settings, not flat)
            content = json.loads(RESULTS.read_text()) if RESULTS.exists() else content
            old = {(r["model"], r["setting"], r["inputs"]): r.get("layers") for r in content["rows"]}
            for row in rows:
                layers = old.get((row["model"], row["setting"], row["inputs"]))
                if flat and layers:
                    row["layers"] = layers
            replaced = {(r["model"], r["setting"]) for r in rows}
            content["rows"] = [r for r in content["rows"] if (r["model"], r["setting"]) not in replaced] + rows
            RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            sys.stderr.write(f"{entry['name']}: {len(rows)} rows\n")
        return
    if fitting:
        found: dict[str, Any] = {"command": "python -m planish.tools.bench.prediction --fit"}
        found |= {kind: fit(content["rows"], kind) for kind in ("synthetic", "samples")}
        CALIBRATION.write_text(json.dumps(found, indent=1) + "\n")
        return
    content["judged"] = judge(content["rows"])
    RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    draw(content["rows"], content["judged"], RESULTS.with_suffix(".png"))
    json.dump({k: v for k, v in content["judged"].items() if k != "points"}, sys.stdout, indent=1, ensure_ascii=False)


if __name__ == "__main__":
    main()

"""Data-free structured pruning on the model pack: metric against MACs for every criterion and compensation.

    python -m planish.tools.bench.pruning [--curves] [--limit N] [--json FILE] [--plot FILE] [CASE ...]

A case is `model/file=budget`, e.g. `resnet20_cifar10/model_bn=macs=-40%`; without any, the cases of docs/pruning.md.
The pack's own `evaluate.py` judges; its data is never an input to the passes. Wall-clock is ONNX Runtime's, one thread.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.capture import capture
from ...ir.channels import analyze, prunable_share
from ...ir.cost import summary
from ...ir.execute import Session
from ...ir.feeds import working_feeds
from ...passes.context import Context
from ...passes.manager import PassManager
from .quantization import PACK, load_evaluate, metric

# model/file -> budget, samples to synthesise; what docs/pruning.md reports
CASES: dict[str, tuple[str, int]] = {
    "resnet20_cifar10/model_bn=macs=-20%": ("alignment=2", 256),
    "resnet20_cifar10/model_bn=macs=-40%": ("alignment=2", 256),
    "resnet8_cifar10/model_bn=macs=-20%": ("alignment=2", 256),
    "kws_dscnn/model_bn=macs=-20%": ("", 256),
    "lenet_mnist/model=parameters=-60%": ("", 256),
    "mobilenetv1_075/model=macs=-15%": ("", 32),
    "mobilenetv2_tf/model=macs=-10%": ("", 32),
}
PREPARE = (
    "inline-functions,lift-constants,lift-subgraph-initializers,"
    "fixpoint{steps=4}(fold-shapes,fold-constants,remove-no-ops,fold-bn,remove-unused)"
)
METHODS = {
    "elimination + refit": "",
    "l1 + refit": "criterion=l1",
    "l1 alone": "criterion=l1 compensation=none",
    "random + refit": "criterion=random",
}
CURVE = (10, 20, 30, 40, 50)


def prepare(path: Path) -> ir.Model:
    """The model with BatchNorm folded and shapes known."""
    model = capture(path)
    PassManager(PREPARE).run(model)
    shapes.infer(model)
    return model


def milliseconds(model: ir.Model) -> float:
    """Median of 15 runs at batch 1, ONNX Runtime with its optimizations, one thread."""
    feeds = working_feeds(model, Session(model), 0)[0]
    session = Session(model, optimized=True, threads=1)
    times = []
    for _ in range(18):
        start = time.perf_counter()
        session(feeds)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[3:])


def run_case(original: ir.Model, task: str, budget: str, options: str, samples: int, limit: int) -> dict[str, Any]:
    """Prune a copy for one budget and measure it."""
    model, context = original.clone(), Context()
    manager = PassManager(f'synthesize-inputs{{samples={samples}}},prune{{budget="{budget}" {options}}}')
    start = time.perf_counter()
    records = manager.run(model, context).records
    seconds = time.perf_counter() - start
    before, after = summary(original), summary(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path)
        result = metric(load_evaluate(PACK), path, task, limit)
    return {
        "budget": budget,
        "options": options,
        "metric": next(iter(result.values())),
        "macs": round(after.macs / before.macs, 4),
        "parameters": round(after.parameters / before.parameters, 4),
        "milliseconds": [round(milliseconds(original), 3), round(milliseconds(model), 3)],
        "seconds": round(seconds, 1),
        "changes": [f"{c.site}: {c.detail}" for c in records[-1].changes],
    }


def rows(cases: Sequence[str], curves: bool, limit: int) -> Iterator[dict[str, Any]]:
    """One row per case, or per point of its curves."""
    facts = {m["name"]: m for m in json.loads((PACK / "MODELS.json").read_text())}
    for case in cases:
        where, _, budget = case.partition("=")
        name, _, file = where.partition("/")
        options, samples = CASES.get(case, ("", 64))
        original = prepare(PACK / name / f"{file or 'model'}.onnx")
        share = prunable_share(analyze(original).groups)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            ir.save(original, path)
            base = next(iter(metric(load_evaluate(PACK), path, facts[name]["task"], limit).values()))
        unit = budget.partition("=")[0]
        wanted = [f"{unit}=-{p}%" for p in CURVE] if curves else [budget]
        for method, extra in METHODS.items() if curves else [("elimination + refit", "")]:
            for one in wanted:
                row = run_case(original, facts[name]["task"], one, f"{options} {extra}".strip(), samples, limit)
                yield {"model": where, "method": method, "float": base, "prunable_share": round(share, 4), **row}


def plot(table: Sequence[dict[str, Any]], path: str) -> None:
    """Metric against the share of MACs that is left, one panel per model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = list(dict.fromkeys(row["model"] for row in table))
    figure, panels = pyplot.subplots(1, len(models), figsize=(5 * len(models), 4), squeeze=False)
    for model, panel in zip(models, panels[0], strict=True):
        mine = [row for row in table if row["model"] == model]
        for method in dict.fromkeys(row["method"] for row in mine):
            points = sorted((row["macs"], row["metric"]) for row in mine if row["method"] == method)
            line = np.array([*points, (1.0, mine[0]["float"])])
            panel.plot(line[:, 0], line[:, 1], marker="o", label=method)
        panel.set(title=model, xlabel="share of MACs left", ylabel="metric")
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


@click.command()
@click.argument("cases", nargs=-1)
@click.option("--curves", is_flag=True, help="Every method at 10 to 50 % instead of the one budget.")
@click.option("--limit", default=0, help="Samples to judge on; 0 takes all.")
@click.option("--json", "json_path", help="Write the table here too.")
@click.option("--plot", "plot_path", help="Write a plot of metric against MACs.")
def main(cases: Sequence[str], curves: bool, limit: int, json_path: str | None, plot_path: str | None) -> None:
    """Accuracy of pruned models without data and without fine-tuning."""
    table = []
    for row in rows(cases or list(CASES), curves, limit):
        table.append(row)
        click.echo(json.dumps(row))
        if json_path:
            Path(json_path).write_text(json.dumps(table, indent=1) + "\n")
    if plot_path:
        plot(table, plot_path)


if __name__ == "__main__":
    main()

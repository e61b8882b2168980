"""Data-free pruning on the model pack, without fine-tuning: metric against what is left, judged by the pack's data.

    python -m planish.tools.bench.pruning [--curves] [--network PATH] [--limit N] [--json FILE] [--plot FILE] [NAME ...]

Without `--curves`, the budgets of docs/pruning.md (names: of `CASES`); with it, every criterion and compensation
(names: of `METHODS`) on the networks of `CURVES`. Rows that FILE holds already are replaced, others stay. The pack's
own `evaluate.py` judges; its data is never an input to the passes.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir

from ...errors import PlanishError
from ...ir import shapes
from ...ir.capture import capture
from ...ir.cost import summary
from ...passes.context import Context
from ...passes.defaults import exact
from ...passes.manager import PassManager
from ...passes.prune.costs import measure
from .quantization import PACK, load_evaluate, metric


@dataclass(frozen=True)
class Case:
    """A network, what is asked of `prune`, the drop of the metric that is allowed, and the passes that make inputs."""

    file: str
    options: str
    drop: float
    inputs: str = "synthesize-inputs{samples=256}"


DISTILLED = "synthesize-inputs{samples=32},distill-inputs{steps=60}"
CASES: Mapping[str, Case] = {
    "resnet20 −20 % MACs": Case("resnet20_cifar10/model_bn", 'budget="macs=-20%" alignment=2', 0.0214),
    "resnet20 −40 % MACs": Case("resnet20_cifar10/model_bn", 'budget="macs=-40%" alignment=2', 0.1164),
    "resnet8 −20 % MACs": Case("resnet8_cifar10/model_bn", 'budget="macs=-20%" alignment=2', 0.04),
    "kws −20 % MACs": Case("kws_dscnn/model_bn", 'budget="macs=-20%"', 0.04),
    "lenet −60 % parameters": Case("lenet_mnist/model", 'budget="parameters=-60%"', 0.01),
    "mobilenetv1 −15 % MACs": Case("mobilenetv1_075/model", 'budget="macs=-15%"', 0.06, DISTILLED),
    "mobilenetv2 −10 % MACs": Case(
        "mobilenetv2_tf/model", 'budget="macs=-10%"', 0.08, "synthesize-inputs,vary-inputs{samples=128}"
    ),
    "minilm −25 % heads, units": Case("all_minilm_l6_v2/model", "ratio=0.25", 0.05, "synthesize-inputs{samples=32}"),
}
PREPARE = (
    "inline-functions,lift-constants,lift-subgraph-initializers,"
    "fixpoint{steps=4}(fold-shapes,fold-constants,remove-no-ops,fold-bn,remove-unused)"
)
# method -> passes for a budget of MACs, or for the share of channels that comes closest to it; bn-scale is not among
# them, since it is l1 where BatchNorm is folded
METHODS: Mapping[str, str] = {
    "l1": 'prune{{budget="macs=-{percent}%" criterion=l1 compensation=none {options}}}',
    "random": 'prune{{budget="macs=-{percent}%" criterion=random compensation=none {options}}}',
    "l2": 'prune{{budget="macs=-{percent}%" criterion=l2 compensation=none {options}}}',
    "fpgm": 'prune{{budget="macs=-{percent}%" criterion=fpgm compensation=none {options}}}',
    "dfpc": 'prune{{budget="macs=-{percent}%" criterion=dfpc compensation=none {options}}}',
    "attention": 'prune{{budget="macs=-{percent}%" criterion=attention compensation=none {options}}}',
    "taylor": 'prune{{budget="macs=-{percent}%" criterion=taylor compensation=none {options}}}',
    "l1 + merge": 'prune{{budget="macs=-{percent}%" criterion=l1 compensation=merge {options}}}',
    "fold-channels": "fold-channels{{ratio={ratio}}}",
    "l1 + refit": 'prune{{budget="macs=-{percent}%" criterion=l1 {options}}}',
    "taylor + refit": 'prune{{budget="macs=-{percent}%" criterion=taylor {options}}}',
    "obs + refit": 'prune{{budget="macs=-{percent}%" {options}}}',
}
CURVES = ("resnet8_cifar10/model_bn", "kws_dscnn/model_bn", "lenet_mnist/model", "resnet20_cifar10/model_bn")
CURVE_OPTIONS = "alignment=1"
POINTS = (10, 20, 30)
CURVE_SAMPLES = 64


def original(file: str) -> tuple[ir.Model, str]:
    """A network of the pack with BatchNorm folded (attention: all clean-ups, for its LayerNorms), and its task."""
    name = file.partition("/")[0]
    facts = {m["name"]: m for m in json.loads((PACK / "MODELS.json").read_text())}
    model = capture(PACK / f"{file}.onnx")
    PassManager(exact() if name.startswith("all_minilm") else PREPARE).run(model)
    shapes.infer(model)
    return model, str(facts[name]["task"])


def judged(model: ir.Model, task: str, limit: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path)
        return float(next(iter(metric(load_evaluate(PACK), path, task, limit).values())))


def left(before: ir.Model, after: ir.Model) -> dict[str, float]:
    """Shares that are left, counted on the rewritten graph; latency is the cost model's."""
    one, two = summary(before), summary(after)
    return {
        "macs": round(two.macs / one.macs, 4),
        "parameters": round(two.parameters / one.parameters, 4),
        "predicted_latency": round(measure("latency", after, None) / measure("latency", before, None), 4),
    }


def run_case(title: str, case: Case, limit: int) -> dict[str, Any]:
    """Prune for one budget and measure."""
    before, task = original(case.file)
    model = before.clone()
    manager = PassManager(f"{case.inputs},prune{{{case.options}}},remove-unused")
    start = time.perf_counter()
    records = manager.run(model, Context()).records
    seconds = time.perf_counter() - start
    base, result = judged(before, task, limit), judged(model, task, limit)
    changes = [f"{c.site}: {c.detail}" for r in records if r.pass_name == "prune" for c in r.changes]
    return {
        "case": title,
        "model": case.file,
        "passes": manager.spec(),
        "float": base,
        "pruned": result,
        "drop": round(base - result, 4),
        "bar": case.drop,
        "left": left(before, model),
        "seconds": round(seconds, 1),
        "changes": changes,
    }


def curves(file: str, methods: Sequence[str], limit: int) -> Iterator[dict[str, Any]]:
    """Some methods at every point of one network, on the same synthesised inputs."""
    before, task = original(file)
    context = Context()
    PassManager(f"synthesize-inputs{{samples={CURVE_SAMPLES}}}").run(before, context)
    base = judged(before, task, limit)
    for method in methods:
        for percent in POINTS:
            model = before.clone()
            ratio = round(1 - np.sqrt(1 - percent / 100), 3)  # MACs go with the square of the width
            passes = METHODS[method].format(percent=percent, ratio=ratio, options=CURVE_OPTIONS)
            start = time.perf_counter()
            PassManager(passes).run(model, Context(synthetic=context.synthetic, likeliest=context.likeliest))
            seconds = round(time.perf_counter() - start, 1)
            result = judged(model, task, limit)
            case = f"{file}, {method}, −{percent} %"
            row = {"case": case, "model": file, "method": method, "passes": passes, "float": base, "pruned": result}
            yield row | {"left": left(before, model), "seconds": seconds}


def plot(table: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Metric against the share of MACs that is left, one panel per network."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlanishError("matplotlib is not installed", where="--plot", hint="pip install planish[report]") from error
    models, methods = (list(dict.fromkeys(row[key] for row in table)) for key in ("model", "method"))
    figure = Figure(figsize=(5.5 * len(models), 4.5), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for model, panel in zip(models, panels, strict=True):
        mine = [row for row in table if row["model"] == model]
        for k, method in enumerate(methods):
            points = [(1.0, mine[0]["float"])]
            points += [(row["left"]["macs"], row["pruned"]) for row in mine if row["method"] == method]
            line = np.array(sorted(points))
            color, width = ("black", 2) if method == "l1" else (f"C{k}", 1)
            panel.plot(line[:, 0], line[:, 1], marker="os"[k // 10], color=color, linewidth=width, label=method)
        panel.set(title=model, xlabel="share of MACs left", ylabel="top-1")
    panels[-1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(path, dpi=100)


@click.command(help=__doc__)
@click.argument("cases", nargs=-1)
@click.option("--curves", "drawn", is_flag=True, help="Every method on the networks of CURVES.")
@click.option("--network", default="", help="Of CURVES, only those whose path starts so.")
@click.option("--limit", default=0, help="Samples to judge on; 0 takes all.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the table here too.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Draw the curves (needs matplotlib).")
def main(
    cases: Sequence[str], drawn: bool, network: str, limit: int, json_path: Path | None, picture: Path | None
) -> None:
    known = json.loads(json_path.read_text(encoding="utf-8")) if json_path and json_path.exists() else []
    table = {row["case"]: row for row in known}
    if drawn:
        files = [file for file in CURVES if not network or file.startswith(network)]
        rows = (r for file in files for r in curves(file, cases or tuple(METHODS), limit))
    else:
        rows = (run_case(title, case, limit) for title, case in CASES.items() if not cases or title in cases)
    for row in rows:
        table[row["case"]] = row
        click.echo(json.dumps(row, ensure_ascii=False))
        if json_path:
            text = json.dumps(list(table.values()), indent=1, ensure_ascii=False)
            json_path.write_text(text + "\n", encoding="utf-8")
    if picture:
        plot(list(table.values()), picture)


if __name__ == "__main__":
    main()

"""Block replacement: accuracy, MACs and time of closed-form fits, blockwise training and end-to-end distillation.

    python -m planish.tools.bench.replace [--out FILE] [--table FILE] [--plot FILE] [ROW ...]

Rows are pipelines of `optimize`. Those without `images` use nothing but the model; the others take the 25 000 JPEG
training images of the pack, without labels. The pack's metric judges. `workers` times the same training on one
worker and on two.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import onnx_ir as ir

from ...driver import optimize
from ...ir.cost import summary
from .quantization import PACK, load_evaluate, metric
from .recovery import training_images

__all__ = ["ROWS"]


@dataclass(frozen=True)
class Row:
    """A pipeline on a model of the pack; images: train on the pack's unlabelled images."""

    model: str
    task: str
    passes: str
    images: bool = False


_MADE = "synthesize-inputs{samples=64}"
_HALF = 'replace{budget="macs=-50%" factories=separable'
_SVD = 'replace{{budget="macs=-{}%" factories=low-rank-channel observe=false}}'  # plain: of the weights alone
_FITTED = 'replace{{budget="macs=-{}%"}}'
_SHARES = (25, 50, 65)  # percent of the MACs that are saved, where methods are compared over them
_FIFTH = 'replace{budget="parameters=-20%" factories="low-rank,low-rank-channel" observe=false'
_FIFTH_FITTED = _FIFTH.replace(" observe=false", "")
_TRAINED = "train=300"

ROWS: Mapping[str, Row] = {
    **{f"resnet20 svd -{n} %": Row("resnet20_cifar10", "cifar10_jpeg", _SVD.format(n)) for n in _SHARES},
    **{
        f"resnet20 any factory, fitted -{n} %": Row("resnet20_cifar10", "cifar10_jpeg", f"{_MADE},{_FITTED.format(n)}")
        for n in _SHARES
    },
    "resnet20 plain": Row("resnet20_cifar10", "cifar10_jpeg", f"{_HALF} observe=false}}"),
    "resnet20 fitted": Row("resnet20_cifar10", "cifar10_jpeg", f"{_MADE},{_HALF}}}"),
    "resnet20 blockwise": Row("resnet20_cifar10", "cifar10_jpeg", f"{_MADE},{_HALF} {_TRAINED} correct=100}}"),
    "resnet20 fitted, images": Row("resnet20_cifar10", "cifar10_jpeg", f"{_HALF}}}", True),
    "resnet20 end to end, images": Row("resnet20_cifar10", "cifar10_jpeg", f"{_HALF}}},recover{{steps=600}}", True),
    "resnet20 blockwise and end to end, images": Row(
        "resnet20_cifar10", "cifar10_jpeg", f"{_HALF} {_TRAINED} correct=100}},recover{{steps=600}}", True
    ),
    **{
        f"{name} {method}": Row(model, task, passes)
        for name, model, task in (
            ("mobilenetv2", "mobilenetv2_tf", "imagenet_tf"),
            ("minilm", "all_minilm_l6_v2", "stsb"),
        )
        for method, passes in (
            ("plain", f"{_FIFTH}}}"),
            ("blockwise", f"{_MADE},{_FIFTH} {_TRAINED} correct=100}}"),
            ("fitted", f"{_MADE},{_FIFTH_FITTED}}}"),
            ("fitted, blockwise", f"{_MADE},{_FIFTH_FITTED} {_TRAINED} correct=100}}"),
        )
    },
}
_TIMED = f"synthesize-inputs{{samples=32}},{_HALF} train=100 workers="


def measured(pack: Path, name: str, row: Row, limit: int) -> dict[str, Any]:
    """One row: metric of the original and of the result, its cost, the time it took."""
    path = pack / row.model / "model.onnx"
    data = {k: v for k, v in training_images(pack).items() if k != "labels"} if row.images else None
    before = optimize(path, target="arm64", passes="fold-bn")
    start = time.monotonic()
    result = optimize(path, target="arm64", passes=row.passes, data=data)
    seconds = time.monotonic() - start
    evaluate = load_evaluate(pack)
    with tempfile.TemporaryDirectory() as directory:
        saved = Path(directory) / "model.onnx"
        ir.save(result.model, saved)
        float_metric = metric(evaluate, path, row.task, limit)
        found = metric(evaluate, saved, row.task, limit)
    key = next(iter(found))
    costs = [summary(m) for m in (before.model, result.model)]
    return {
        "row": name,
        "passes": row.passes,
        "metric": key,
        "samples": found.get("n"),
        "float": float_metric[key],
        "result": found[key],
        "drop": round(float_metric[key] - found[key], 4),
        "macs": [c.macs for c in costs],
        "parameters": [c.parameters for c in costs],
        "seconds": round(seconds, 1),
        "training": [p["measures"]["training"] for p in result.report["passes"] if "training" in p["measures"]],
    }


def workers(pack: Path) -> dict[str, Any]:
    """The time of one blockwise training with one worker and with two, and whether the results are the same."""
    path = pack / "resnet20_cifar10" / "model.onnx"
    times, weights = [], []
    for count in (1, 2):
        result = optimize(path, target="arm64", passes=f"{_TIMED}{count}}}")
        times.append(
            next(p["measures"]["training"]["seconds"] for p in result.report["passes"] if p["pass"] == "replace")
        )
        weights.append(
            {n: v.const_value.tobytes() for n, v in result.model.graph.initializers.items() if v.const_value}
        )
    return {
        "row": "workers",
        "passes": f"{_TIMED}2}}",
        "seconds": times,
        "speed_up": round(times[0] / times[1], 2),
        "same_bits": weights[0] == weights[1],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Metric, cost and time of every row, in Markdown."""
    lines = ["| | metric | lost | MACs | parameters | time |", "|---|---|---|---|---|---|"]
    for r in (r for r in rows if r["row"] != "workers"):
        macs, parameters = (f"{100 * (r[unit][1] / r[unit][0] - 1):+.0f} %" for unit in ("macs", "parameters"))
        lost = f"{100 * r['drop']:.1f}"
        lines.append(f"| {r['row']} | {r['result']:.3f} | {lost} | {macs} | {parameters} | {r['seconds']:.0f} s |")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Left, ResNet-20's accuracy over its MACs, a line a method; right, what the others lose at a fifth less."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5), width_ratios=(3, 2))
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for r in (r for r in rows if r["row"].startswith("resnet20")):
        method = re.sub(r" -\d+ %", "", r["row"].removeprefix("resnet20 "))
        lines.setdefault(method, []).append((r["macs"][1] / 1e6, 100 * r["result"], r["seconds"]))
    for method, points in lines.items():
        x, y, seconds = zip(*sorted(points), strict=True)
        left.plot(x, y, "o-", label=f"{method} ({max(seconds):.0f} s)")
    if first := next((r for r in rows if r["row"].startswith("resnet20")), None):
        left.axhline(100 * first["float"], color="gray", linestyle=":")
        left.set_xlim(0, first["macs"][0] / 1e6)
    left.set(xlabel="million MACs", ylabel="top-1 in %", title="ResNet-20, CIFAR-10 as JPEG; dotted: the original")
    left.legend(fontsize="small", loc="lower left")
    others = [r for r in rows if not r["row"].startswith("resnet20") and r["row"] != "workers"]
    right.barh([f"{r['row']} ({r['seconds']:.0f} s)" for r in others], [100 * r["drop"] for r in others])
    right.invert_yaxis()
    right.set(xlabel="points lost (of Spearman for minilm)", title="a fifth fewer parameters")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--pack", type=click.Path(exists=True, path_type=Path), default=PACK, help="Directory of the models.")
@click.option("--limit", default=0, help="Samples per model; 0 for all.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file; rows of earlier runs stay in it.")
@click.option("--redraw", is_flag=True, help="Measure nothing: table and plot of what the JSON holds.")
@click.option("--table", "table_path", type=click.Path(path_type=Path), help="Markdown file of all rows of the JSON.")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG file, drawn from all rows of the JSON.")
def main(
    names: tuple[str, ...],
    pack: Path,
    limit: int,
    out: Path | None,
    redraw: bool,
    table_path: Path | None,
    plot: Path | None,
) -> None:
    rows = json.loads(out.read_text()) if out is not None and out.exists() else []
    for name in () if redraw else names or [*ROWS, "workers"]:
        found = workers(pack) if name == "workers" else measured(pack, name, ROWS[name], limit)
        click.echo(json.dumps(found, ensure_ascii=False))
        rows = [r for r in rows if r["row"] != name] + [found]
        if out is not None:
            out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    order = [*ROWS, "workers"]
    rows.sort(key=lambda r: order.index(r["row"]))
    if table_path is not None:
        table_path.write_text(table(rows))
    if plot is not None:
        draw(rows, plot)


if __name__ == "__main__":
    main()

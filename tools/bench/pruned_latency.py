"""Latency before and after pruning on this machine, beside what the cost model predicted from the graph.

    python -m planish.tools.bench.pruned_latency build DIR [CASE ...]      prune and compile, some minutes
    python -m planish.tools.bench.pruned_latency measure DIR [CASE ...]    run, seconds; prints JSON

Float networks compiled for the host, one thread, batch 1; original and pruned take turns and the medians count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir

from ...backends.batch import fix_batch
from ...backends.tvm.floats.cost import node_cost
from ...backends.tvm.load import CompiledModel
from ...driver import optimize
from ...ir import shapes
from ...ir.cost import summary
from ...passes.prune.costs import measure as cost_of
from ...targets.registry import resolve
from .latency import interleaved, timed
from .quantization import PACK

# directory -> network and budget
CASES: Mapping[str, tuple[str, str]] = {
    "resnet20 latency −30 %": ("resnet20_cifar10/model_bn", "latency=-30%"),
    "resnet20 MACs −40 %": ("resnet20_cifar10/model_bn", "macs=-40%"),
    "resnet8 latency −30 %": ("resnet8_cifar10/model_bn", "latency=-30%"),
    "kws latency −30 %": ("kws_dscnn/model_bn", "latency=-30%"),
    "lenet parameters −60 %": ("lenet_mnist/model", "parameters=-60%"),
}
ROUNDS = 15


def build(directory: Path, cases: Mapping[str, tuple[str, str]]) -> None:
    """An artifact for every network as it is and one for every case."""
    for title, (file, budget) in cases.items():
        source = PACK / f"{file}.onnx"
        plain = directory / file.partition("/")[0]
        if not plain.exists():
            optimize(source, "host", plain, level=1, require_compiled=True)
        if not (directory / title).exists():
            optimize(source, "host", directory / title, level=1, budget=budget, require_compiled=True)


def _predicted(path: Path) -> float:
    model, _ = fix_batch(ir.load(path / "model.onnx"))
    shapes.infer(model)
    target = resolve("host")
    return cost_of("latency", model, target, node_cost(target))


def measure(directory: Path, cases: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """One row a case: shares of MACs and of latency that are left, predicted and measured."""
    table = []
    for title, (file, budget) in cases.items():
        paths = {"before": directory / file.partition("/")[0], "after": directory / title}
        models = {name: CompiledModel(path / "model.so") for name, path in paths.items()}
        rng = np.random.default_rng(0)
        feeds = {
            name: rng.standard_normal(shape).astype(dtype) for name, (shape, dtype) in models["before"].inputs.items()
        }
        found = interleaved({name: timed(model.bind(**feeds)) for name, model in models.items()}, ROUNDS)
        macs = {name: summary(ir.load(path / "model.onnx")).macs for name, path in paths.items()}
        predicted = _predicted(paths["after"]) / _predicted(paths["before"])
        measured = found["after"] / found["before"]
        table.append(
            {
                "case": title,
                "budget": budget,
                "macs_left": round(macs["after"] / macs["before"], 4),
                "predicted": round(predicted, 4),
                "measured": round(measured, 4),
                "difference": round(measured / predicted - 1, 4),
                "ms": {name: round(ms, 4) for name, ms in found.items()},
            }
        )
    return table


@click.command(help=__doc__)
@click.argument("what", type=click.Choice(["build", "measure"]))
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("cases", nargs=-1)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the table here too.")
def main(what: str, directory: Path, cases: tuple[str, ...], path: Path | None) -> None:
    chosen = {title: case for title, case in CASES.items() if not cases or title in cases}
    if what == "build":
        directory.mkdir(parents=True, exist_ok=True)
        build(directory, chosen)
        return
    text = json.dumps(measure(directory, chosen), indent=1, ensure_ascii=False)
    click.echo(text)
    if path:
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""A picture of the variants in the rows of the Ethos-U benchmark: cycles beside the dense network's, and accuracy.

python -m planish.tools.bench.ethosu_plot docs/results/ethos-u.json docs/results/ethos-u.png [--model NAME]
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ...errors import PlanishError
from .ethosu import TARGETS, VARIANTS

__all__ = ["draw"]

Rows = Mapping[tuple[str, str], Mapping[str, Any]]
_WIDTH = 0.25  # of a bar; three fill a group


def draw(rows: Rows, variants: Sequence[str], path: Path) -> None:
    """rows: by target and variant, of one model; the first target's rows hold the accuracy."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlanishError("matplotlib is not installed", where="plot", hint="pip install planish[report]") from error
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    cycles, accuracy = figure.subplots(1, 2, width_ratios=[2, 1])
    for i, target in enumerate(TARGETS):
        dense = rows[target, "dense"]["vela"]["cycles"]
        shares = [rows[target, v]["vela"]["cycles"] / dense for v in variants]
        cycles.bar([x + (i - 1) * _WIDTH for x in range(len(variants))], shares, _WIDTH, label=target)
    cycles.set_ylabel("Vela's cycles, dense = 1")
    cycles.set_xticks(range(len(variants)), variants)
    cycles.legend(fontsize="small", loc="lower left")
    measured = [rows[TARGETS[0], v] for v in variants]
    accuracy.plot(range(len(variants)), [100 * r["litert"] for r in measured], "o", label="LiteRT")
    accuracy.plot(range(len(variants)), [100 * r["simulated"] for r in measured], "x", label="simulated")
    accuracy.axhline(100 * measured[0]["float_metric"], linestyle=":", color="gray", label="float")
    accuracy.set_xticks(range(len(variants)), variants, rotation=45, ha="right")
    accuracy.set_ylabel(f"top-1 %, {measured[0]['samples']} images")
    accuracy.legend(fontsize="small")
    figure.savefig(path, dpi=100)


@click.command(help=__doc__)
@click.argument("rows", type=click.Path(exists=True, path_type=Path))
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--model", default="resnet20_cifar10", show_default=True)
def main(rows: Path, picture: Path, model: str) -> None:
    chosen = [row for row in json.loads(rows.read_text()) if row["model"] == model]
    found = {(row["target"], row["variant"]): row for row in chosen}
    draw(found, [v for v in VARIANTS if all((t, v) in found for t in TARGETS)], picture)


if __name__ == "__main__":
    main()

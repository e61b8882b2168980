"""Cost of the text form and the verifier by number of nodes: `python -m planish.tools.bench.text` prints JSON.

`exponent` is the slope of log time over log nodes between the smallest and the largest graph: 1 is linear.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

import click

from ...ir.text import parse_model, print_model
from ...ir.text.parser import Array
from ...ir.verify import RULES
from .manager import chain

__all__ = ["main", "measure"]


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return round(time.perf_counter() - start, 4)


def measure(nodes: int) -> dict[str, float]:
    """Seconds to print a graph of about `nodes` nodes, to parse the text, and to ask every rule of the verifier."""
    model, weights = chain(nodes), dict[str, Array]()
    text = print_model(model, weights=weights)
    result: dict[str, float] = {
        "nodes": len(model.graph),
        "characters": len(text),
        "print": _seconds(lambda: print_model(model)),
        "parse": _seconds(lambda: parse_model(text, weights)),
    }
    for rule in RULES:
        result[f"verify {rule.name}"] = _seconds(lambda rule=rule: list(rule.find(model)))  # type: ignore[misc]
    return result


@click.command()
@click.option("--sizes", default="1000,10000,100000", show_default=True, help="Numbers of nodes.")
def main(sizes: str) -> None:
    """Time the text form and the verifier on chains of residual blocks."""
    runs = [measure(int(size)) for size in sizes.split(",")]
    small, large = runs[0], runs[-1]
    span = math.log(large["nodes"] / small["nodes"]) or 1.0
    exponent = {
        key: round(math.log(large[key] / small[key]) / span, 2) for key in small if small[key] > 0 and large[key] > 0
    }
    click.echo(json.dumps({"runs": runs, "exponent": exponent}, indent=2))


if __name__ == "__main__":
    main()

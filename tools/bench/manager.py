"""Cost of a pipeline by number of nodes: `python -m planish.tools.bench.manager --sizes 1000,10000` prints JSON.

`exponent` is the slope of log time over log nodes between the smallest and the largest graph: 1 is linear.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import defaultdict

import click
import numpy as np
import onnx_ir as ir

from ...passes import defaults
from ...passes.context import Context
from ...passes.manager import PassManager
from ...targets.registry import resolve

__all__ = ["chain", "main", "measure"]

_CHANNELS = 4
_BLOCK = ("Conv", "BatchNormalization", "Relu", "Identity", "Add")  # the nodes of one residual block


def chain(nodes: int) -> ir.Model:
    """A network of about `nodes` nodes: residual blocks of 1×1 convolutions with weights of their own."""
    rng = np.random.default_rng(0)
    shape = ir.Shape([1, _CHANNELS, 8, 8])
    image = ir.Value(name="image", shape=shape, type=ir.TensorType(ir.DataType.FLOAT))
    weights: list[ir.Value] = []
    made: list[ir.Node] = []

    def weight(name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> ir.Value:
        tensor = ir.Tensor(array.astype(np.float32), name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        weights.append(value)
        return value

    def node(op: str, inputs: list[ir.Value], name: str) -> ir.Value:
        made.append(ir.Node("", op, inputs, name=name))
        output = made[-1].outputs[0]
        output.name, output.shape, output.dtype = f"{name}_out", shape, ir.DataType.FLOAT
        return output

    value = image
    for block in range(max(1, nodes // len(_BLOCK))):
        filters = weight(f"w{block}", rng.normal(size=(_CHANNELS, _CHANNELS, 1, 1)) / _CHANNELS)
        moments = [weight(f"{part}{block}", rng.uniform(0.5, 1, _CHANNELS)) for part in ("g", "b", "m", "v")]
        y = node("Conv", [value, filters], f"conv{block}")
        y = node("BatchNormalization", [y, *moments], f"bn{block}")
        y = node("Relu", [y], f"relu{block}")
        y = node("Identity", [y], f"same{block}")
        value = node("Add", [y, value], f"add{block}")
    graph = ir.Graph([image], [value], nodes=made, initializers=weights, opset_imports={"": 20}, name="chain")
    return ir.Model(graph, ir_version=10)


def measure(nodes: int, passes: str) -> dict[str, object]:
    """Seconds of every pass of a pipeline on a graph of about `nodes` nodes, and of the manager around them."""
    model = chain(nodes)
    before = len(model.graph)
    manager = PassManager(passes)
    start = time.perf_counter()
    outcome = manager.run(model, Context(target=resolve("host")))
    total = time.perf_counter() - start
    by_pass: dict[str, float] = defaultdict(float)
    for record in outcome.records:
        by_pass[record.pass_name] += record.seconds
    return {
        "nodes": before,
        "nodes_after": len(model.graph),
        "seconds": round(total, 4),
        "microseconds_per_node": round(1e6 * total / before, 2),
        "seconds_of_manager": round(total - sum(by_pass.values()), 6),
        "seconds_by_pass": {name: round(seconds, 4) for name, seconds in by_pass.items()},
    }


def _exponent(first: tuple[float, float], last: tuple[float, float]) -> float | None:
    if first[0] == last[0] or min(first[1], last[1]) <= 0:
        return None
    return round(math.log(last[1] / first[1]) / math.log(last[0] / first[0]), 3)


@click.command(context_settings={"show_default": True})
@click.option("--sizes", default="1000,3000,10000,30000,100000", help="Numbers of nodes.")
@click.option("--passes", help="Pipeline text; without it the exact passes of -O1.")
def main(sizes: str, passes: str | None) -> None:
    """Time a pipeline on generated graphs of several sizes."""
    text = passes if passes is not None else PassManager(defaults.for_level(1, resolve("host"))).spec()
    numbers = sorted(int(size) for size in sizes.split(","))
    measure(200, text)  # imports and first calls are not what is measured
    runs = []
    for number in numbers:
        runs.append(measure(number, text))
        print(f"{number} nodes: {runs[-1]['seconds']} s", file=sys.stderr)
    first, last = ((float(str(run["nodes"])), float(str(run["seconds"]))) for run in (runs[0], runs[-1]))
    print(json.dumps({"passes": text, "exponent": _exponent(first, last), "runs": runs}, indent=2))


if __name__ == "__main__":
    main()

"""Carry the moments that BatchNorm left behind through a graph, without running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from . import metadata
from .graph import attribute, constant
from .statistics import Moments, add, clipped, of_statistics

__all__ = ["clip_bounds", "propagated"]

Rule = Callable[[ir.Node, Sequence[Moments]], Moments]


def clip_bounds(node: ir.Node) -> tuple[float, float]:
    """The constant bounds of a Clip, in either operator form; infinite where there is none."""
    limits = []
    for i, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        array = constant(node.inputs[i]) if i < len(node.inputs) else None
        found = attribute(node, name, default) if array is None else array.item()
        limits.append(float(found))  # type: ignore[arg-type]
    return limits[0], limits[1]


def _same(_: ir.Node, inputs: Sequence[Moments]) -> Moments:
    return inputs[0]


def _concat(_: ir.Node, inputs: Sequence[Moments]) -> Moments:
    joined = (np.concatenate([getattr(m, name) for m in inputs]) for name in ("mean", "std", "low", "high"))
    return Moments(*joined)


# operator -> moments of its result from those of its inputs. Pooling keeps the range; its mean and spread are those of
# its input, which is an upper bound for averages and near enough for maxima of correlated neighbours.
_RULES: Mapping[str, Rule] = {
    "Add": lambda _, inputs: add(inputs),
    "AveragePool": _same,
    "Clip": lambda node, inputs: clipped(inputs[0], *clip_bounds(node)),
    "Concat": _concat,
    "Dropout": _same,
    "GlobalAveragePool": _same,
    "GlobalMaxPool": _same,
    "Identity": _same,
    "MaxPool": _same,
    "Relu": lambda _, inputs: clipped(inputs[0], 0.0, np.inf),
}


def propagated(model: ir.Model, deviations: float) -> dict[ir.Value, Moments]:
    """Moments per channel of every value that statistics reach: μ ± `deviations`·σ where BatchNorm stood, then operator
    by operator; summands are taken as independent.
    """
    known: dict[ir.Value, Moments] = {}
    for node in model.graph:
        for value in node.outputs:
            fact = metadata.get(value, metadata.STATISTICS)
            if fact is not None:
                known[value] = of_statistics(fact, deviations)
        inputs = [v for v in node.inputs if v is not None and v.const_value is None]
        rule = _RULES.get(node.op_type)
        if rule is None or node.outputs[0] in known or not inputs or any(v not in known for v in inputs):
            continue
        if node.op_type == "Add" and (len(inputs) < 2 or len({known[v].mean.shape for v in inputs}) > 1):
            continue  # a constant, or an operand that is broadcast over channels
        if node.op_type == "Concat" and attribute(node, "axis") != 1:
            continue
        known[node.outputs[0]] = rule(node, [known[v] for v in inputs])
    return known

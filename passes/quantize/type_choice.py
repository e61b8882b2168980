"""int8 or float32 for each layer with weights, so that together they take no longer than allowed, at least noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...errors import UsageError, VerificationError
from ...ir import metadata
from ...ir.layer_cost import LayerCost
from ...targets.registry import resolve
from ...targets.target import Target
from ..budget import Budget
from ..context import Context, Feeds
from .gates import Site
from .knapsack import Choice, Front
from .legality import data_inputs, has_weights
from .placement import place, why_no_encoding
from .prefer_faster import CPUS, elements, figures
from .quantize import Quantize
from .sensitivity import Noise, decibels

__all__ = ["choose_types"]

_PARTS = 1 << 20  # of the time in float32: what the knapsack counts in
_REASON = "mixed precision: the latency budget has room for it in float"
_SHOWN = 24  # points of the front that the report keeps


@dataclass(frozen=True)
class _Table:
    """Layers that may run in int8 (choice 0) or float32 (choice 1): their times in parts of `before`, their noise.

    before: time of all of them in float32; rest: the noise of what none of them reads.
    """

    layers: Sequence[ir.Node]
    costs: Sequence[LayerCost]
    choices: Sequence[Sequence[Choice]]
    before: float
    rest: float

    @property
    def part(self) -> float:
        return self.before / _PARTS


def choose_types(model: ir.Model, budget: Budget, feeds: Sequence[Feeds], context: Context) -> None:
    """Mark layers that are to stay float: those that gain the outputs most, as far as the latency budget goes.

    Times are those of layers with weights, as `prefer-faster` has them, with the conversions between the two types;
    these depend on the neighbours, so that the choice is made again with less where they exceed the budget.
    """
    target = context.target or resolve("host")
    if target.kind not in CPUS:
        raise UsageError(
            f"{target} has no float kernels to choose",
            where=f"mix-precision, budget {budget}",
            hint="use it for CPUs: --target host or arm64",
        )
    table = _measured(model, target, feeds, context)
    if not table.layers:
        context.record.skip("model", "no layer that could run on integers")
        return
    front = Front(table.choices)
    context.record.measures["front"] = _points(front, table)
    _apply(table, _within(model, target, table, front, budget), context)


def _measured(model: ir.Model, target: Target, feeds: Sequence[Feeds], context: Context) -> _Table:
    layers = [node for node in place(model, target, why_no_encoding).integer if has_weights(node)]
    costs = [figures(node, target, context) for node in layers]
    before = sum(cost.float32 for cost in costs)
    part = before / _PARTS
    trial = model.clone()
    Quantize().run(trial, Context(target=target))
    noise, choices = Noise(trial, model, feeds), []
    rest = set(noise.sites)
    for done, (node, cost) in enumerate(zip(layers, costs, strict=True)):
        context.progress("measuring what each layer costs", done / len(layers))
        read = {str(v.name) for v in data_inputs(node)}
        sites = [s for s in noise.sites if (s.layer == node.name if s.kind == "weights" else s.value in read)]
        rest -= set(sites)
        choices.append([(math.ceil(cost.int8 / part), _worst(noise, sites)), (math.ceil(cost.float32 / part), 0.0)])
    return _Table(layers, costs, choices, before, _worst(noise, [s for s in noise.sites if s in rest]))


def _worst(noise: Noise, sites: Sequence[Site]) -> float:
    return max(noise.of(sites).values(), default=0.0)


def _within(model: ir.Model, target: Target, table: _Table, front: Front, budget: Budget) -> list[int]:
    """The choice of least noise whose time, conversions included, is within the budget."""
    allowed = budget.allowed(table.before)
    room = allowed
    while room >= front.base * table.part:
        steps = int((room / table.part - front.base) // front.step)
        chosen = front.choices(min(steps, len(front.noise) - 1))
        spent = _time(model, target, table, chosen)
        if spent <= allowed:
            return chosen
        room -= max(spent - allowed, front.step * table.part)
    least = _time(model, target, table, [0] * len(table.layers))
    raise VerificationError(
        f"int8 in every layer takes {least / table.before:.0%} of the time in float32, the budget is {budget}",
        where="pass mix-precision",
        hint="allow more, or remove channels too: --budget macs=-40%",
    )


def _time(model: ir.Model, target: Target, table: _Table, chosen: Sequence[int]) -> float:
    """The time of all layers as chosen, with the conversions that they make necessary."""
    excluded = {node: _REASON for node, choice in zip(table.layers, chosen, strict=True) if choice}
    placement = place(model, target, why_no_encoding, excluded)
    integer = set(placement.integer)
    total = sum(table.costs[i].float32 if choice else table.costs[i].int8 for i, choice in enumerate(chosen))
    for value in placement.quantized:
        if value.producer() not in integer:
            total += elements(value) * table.costs[0].quantize
        elif value.is_graph_output() or any(use.node not in integer for use in value.uses()):
            total += elements(value) * table.costs[0].dequantize
    return total


def _points(front: Front, table: _Table) -> list[dict[str, object]]:
    """The front, thinned: share of the time in float32 without conversions, predicted SQNR, layers in float32."""
    steps = front.points()
    kept = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _SHOWN)).round().astype(int))]
    found: list[dict[str, object]] = []
    for step in kept:
        choices = front.choices(step)
        noise = round(decibels(float(front.noise[step]) + table.rest), 2)
        share = round(front.size(choices) / _PARTS, 4)
        found.append({"time": share, "sqnr_db": noise, "layers": sum(choices)})
    return found


def _apply(table: _Table, chosen: Sequence[int], context: Context) -> None:
    for node, choice in zip(table.layers, chosen, strict=True):
        if not choice:
            context.record.skip(node, "int8: float32 would take time that the budget has better uses for")
        elif context.record.change(node, "stays float: what it gains is worth its time"):
            metadata.put(node, metadata.FLOAT, _REASON)

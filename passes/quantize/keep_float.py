"""`keep-float`: refuse integers to the values whose rounding the outputs cannot bear, measured on the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ModelError
from ...ir import metadata
from ...ir.execute import Session
from ...ir.graph import weight_bytes
from ...ir.probe import LARGEST_OBSERVED
from ..base import Pass
from ..context import Context, Feeds
from .quantize import Quantize

__all__ = ["KeepFloat", "refused"]

Array = npt.NDArray[np.generic]

_PICTURE_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class KeepFloat(Pass):
    """Values to leave in float such that the predicted SQNR of every output reaches its goal

    pictures: goal in dB where an output is a picture or has the shape of the signal that comes in, and is looked at or
    listened to: at 35 dB the noise is 2 % of the signal.
    decisions: goal in dB for scores, boxes and masks, which are compared with each other.
    The noise of each value is measured alone, on one synthesised input, and adds up in power.
    """

    pictures: float = 35.0
    decisions: float = 10.0
    name: ClassVar[str] = "keep-float"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        feeds = list(context.data or context.synthetic or ())
        if not feeds or weight_bytes(model) > LARGEST_OBSERVED:
            return
        trial = model.clone()
        scratch = Context(target=context.target)
        Quantize().run(trial, scratch)
        gates = _gated(trial)
        if not gates:
            return
        try:
            noise = _Noise(model, trial, list(gates), _one_sample(model, feeds[0]))
        except ModelError as error:
            context.record.note(f"the effect of 8 bits could not be measured: {error.what}")
            return
        signals = [v.shape for v in model.graph.inputs if v.shape is not None and len(v.shape) > 2][:1]
        goals = {
            str(v.name): self.pictures if _is_picture(v) or v.shape in signals else self.decisions
            for v in model.graph.outputs
        }
        context.record.measures["predicted_sqnr"] = {n: round(_db(p), 2) for n, p in noise.of(noise.all).items()}
        if all(_db(power) >= goals[name] for name, power in noise.of(noise.all).items()):
            return
        self._refuse(model, gates, noise, goals, context)

    def _refuse(
        self, model: ir.Model, gates: Mapping[str, str], noise: _Noise, goals: Mapping[str, float], context: Context
    ) -> None:
        weights = noise.of([])
        alone: dict[str, dict[str, float]] = {}
        for done, gate in enumerate(gates):
            context.progress("measuring what each value costs", done / len(gates))
            alone[gate] = {name: max(p - weights[name], 0.0) for name, p in noise.of([gate]).items()}
        chosen = refused(alone, weights, {name: 10 ** (-goal / 10) for name, goal in goals.items()})
        values = {str(v.name): v for v in (*model.graph.inputs, *(v for n in model.graph for v in n.outputs))}
        for gate in gates if chosen is None else chosen:
            value = values.get(gates[gate])
            if value is None:
                continue
            what = "the rounded weights alone miss the fidelity goal" if chosen is None else "8 bits here cost too much"
            cost = max(alone[gate].values())
            if context.record.change(value, f"stays float: {what} ({_db(cost):.1f} dB SQNR alone)"):
                fact = metadata.get(value, metadata.EVIDENCE) or {}
                reason = f"{what} at {value.name}"
                metadata.put(value, metadata.EVIDENCE, fact | {"refused": reason})


def refused(
    alone: Mapping[str, Mapping[str, float]], rest: Mapping[str, float], budget: Mapping[str, float]
) -> list[str] | None:
    """Fewest sites, costliest first, without which Σ noise ≤ budget at every output; None when `rest` is above it.

    alone: noise power at each output, relative to the signal, caused by each site.
    """
    if any(rest[name] > budget[name] for name in budget):
        return None
    left = {name: rest[name] + sum(site[name] for site in alone.values()) for name in budget}
    ranked = sorted(alone, key=lambda site: -max(alone[site][name] / budget[name] for name in budget))
    chosen: list[str] = []
    for site in ranked:
        if all(left[name] <= budget[name] for name in budget):
            break
        chosen.append(site)
        left = {name: left[name] - alone[site][name] for name in budget}
    return chosen


class _Noise:
    """Noise power at every output, relative to its signal, with chosen gates open and the others shut."""

    def __init__(self, model: ir.Model, gated: ir.Model, gates: Sequence[str], feed: Feeds) -> None:
        self.all = list(gates)
        self._feed = feed
        self._reference = Session(model)(feed)
        self._session = Session(gated)

    def of(self, opened: Sequence[str]) -> dict[str, float]:
        states = {gate: np.asarray(float(gate in set(opened)), np.float32) for gate in self.all}
        result = self._session({**self._feed, **states})
        return {name: _power(self._reference[name], result[name]) for name in self._reference}


def _one_sample(model: ir.Model, feed: Feeds) -> Feeds:
    """The first sample of a feed where every input takes any number of them."""
    if any(v.shape is None or not len(v.shape) or isinstance(v.shape[0], int) for v in model.graph.inputs):
        return feed
    return {name: array[:1] for name, array in feed.items()}


def _power(reference: Array, other: Array) -> float:
    signal = np.asarray(reference, np.float64)
    error = np.asarray(other, np.float64) - signal
    total = float(np.square(signal).sum())
    if not np.isfinite(total) or not np.isfinite(error).all():
        return np.inf
    return float(np.square(error).sum()) / total if total > 0 else 0.0


def _db(power: float) -> float:
    return float(-10 * np.log10(max(power, 1e-20)))


def _is_picture(value: ir.Value) -> bool:
    dims = list(value.shape) if value.shape is not None else []
    return len(dims) == 4 and (dims[1] in _PICTURE_CHANNELS or dims[3] in _PICTURE_CHANNELS)


def _gated(model: ir.Model) -> dict[str, str]:
    """Turn every activation's DQ(Q(x)) into x + gate·(DQ(Q(x)) − x); gate input -> name of the value."""
    gates: dict[str, str] = {}
    graph = model.graph
    for node in list(graph):
        quantize = node.inputs[0].producer() if node.op_type == "DequantizeLinear" and node.inputs[0] else None
        if quantize is None or quantize.op_type != "QuantizeLinear" or quantize.inputs[0] is None:
            continue
        exact, rounded = quantize.inputs[0], node.outputs[0]
        gate = ir.Value(name=f"planish_gate_{len(gates)}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([]))
        uses = list(rounded.uses())
        error = ir.Node("", "Sub", [rounded, exact], num_outputs=1)
        let = ir.Node("", "Mul", [error.outputs[0], gate], num_outputs=1)
        result = ir.Node("", "Add", [exact, let.outputs[0]], num_outputs=1)
        for step, made in enumerate((error, let, result)):
            made.outputs[0].name = f"{gate.name}_{step}"
            made.outputs[0].dtype = ir.DataType.FLOAT
        for use in uses:
            use.node.replace_input_with(use.idx, result.outputs[0])
        if rounded.is_graph_output():
            rounded.name, result.outputs[0].name = f"{gate.name}_rounded", rounded.name
            graph.outputs[list(graph.outputs).index(rounded)] = result.outputs[0]
        graph.insert_after(node, [error, let, result])
        graph.inputs.append(gate)
        gates[str(gate.name)] = str(exact.name)
    return gates

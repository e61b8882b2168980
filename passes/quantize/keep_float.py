"""`keep-float`: no integers for layers and values whose rounding the outputs cannot bear, measured on the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...errors import ModelError
from ...ir import metadata
from ...ir.cost import summary
from ...ir.graph import weight_bytes
from ...ir.probe import LARGEST_OBSERVED, with_shapes
from ..base import Pass
from ..context import Context, Feeds
from .calibration import noise_allowed
from .quantize import Quantize
from .sensitivity import Noise, decibels, few_samples
from .signals import is_picture, signals

__all__ = ["DECISIONS", "PICTURES", "KeepFloat", "fidelity_goals", "refused"]

# goals in dB; pictures: about 50 dB PSNR, a tenth of the error power that the best restoring networks leave themselves
PICTURES = 44.0
_SIGNALS = 35.0  # what is listened to, and masks of its shape: noise of 2 % of the signal
DECISIONS = 10.0
_FEWEST, _MOST = 2, 8  # runs for each value: as many as _MACS allow for all of them
_MACS = 2e9


@dataclass(frozen=True)
class KeepFloat(Pass):
    """Layers and values to leave in float such that the predicted SQNR of every output reaches its goal

    pictures: goal in dB where an output is a picture; where it has the shape of the signal that comes in, 35 dB.
    decisions: goal in dB for scores, boxes and masks, which are compared with each other.
    A budget of the run (`--budget drop=1%`) raises both to what the prediction needs to hold it.
    The noise of each value is measured alone, on a few synthesised inputs, and adds up in power. Where rounded weights
    alone are too much, so is that of each layer's weights, and the costliest layers stay in float first.
    """

    pictures: float = PICTURES
    decisions: float = DECISIONS
    name: ClassVar[str] = "keep-float"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        feeds = list(context.data or context.synthetic or ())
        if not feeds or weight_bytes(model) > LARGEST_OBSERVED:
            return
        if metadata.get(model, metadata.ACTIVATIONS) is not None:
            context.record.skip("model", "`widen-activations` chose 16 bits by goals of its own")
            return
        noise = _measured(model, feeds, context)
        if noise is None or not noise.sites:
            return
        goals = fidelity_goals(model, self.pictures, self.decisions)
        if "drop" in context.budgets:
            asked = decibels(noise_allowed(context.budgets["drop"].allowed(0.0), bool(context.data)))
            goals = {name: max(goal, asked) for name, goal in goals.items()}
        total = noise.total()
        context.record.measures["predicted_sqnr"] = {n: round(decibels(p), 2) for n, p in total.items()}
        if any(decibels(p) < goals[name] for name, p in total.items()):
            weights = _of_weights(noise)
            # pictures of which the weights alone miss the goal: activations may add as much again, down to 35 dB
            pictures = {str(v.name) for v in model.graph.outputs if is_picture(v)}
            reached = {n: max(decibels(weights[n]) - 3.0, _SIGNALS) for n in pictures}
            goals = {n: min(goal, reached.get(n, goal)) for n, goal in goals.items()}
            if any(decibels(weights[name]) < goal for name, goal in goals.items()):
                noise = self._keep_layers(model, noise, goals, feeds, context)
            if noise is not None and noise.sites:
                self._refuse(model, noise, goals, context)

    def _keep_layers(
        self, model: ir.Model, noise: Noise, goals: Mapping[str, float], feeds: Sequence[Feeds], context: Context
    ) -> Noise | None:
        """Leave the layers in float whose weights cost most, until those of the others use half of what is allowed.

        Returns the noise of what is left, None where that cannot be measured.
        """
        sites = [site for site in noise.sites if site.kind == "weights"]
        alone: dict[str, dict[str, float]] = {}
        for done, site in enumerate(sites):
            context.progress("measuring what each layer's weights cost", done / len(sites))
            alone[site.layer] = noise.of([site])
        half = {name: 0.5 * 10 ** (-goal / 10) for name, goal in goals.items()}
        nodes = {str(node.name): node for node in model.graph}
        for layer in refused(alone, dict.fromkeys(goals, 0.0), half) or ():
            what = f"8 bits of its weights cost too much ({decibels(max(alone[layer].values())):.1f} dB SQNR alone)"
            if layer in nodes and context.record.change(nodes[layer], f"stays float: {what}"):
                metadata.put(nodes[layer], metadata.FLOAT, what)
        return _measured(model, feeds, context)

    def _refuse(self, model: ir.Model, noise: Noise, goals: Mapping[str, float], context: Context) -> None:
        weights = _of_weights(noise)
        rounded = [site for site in noise.sites if site.kind == "activation"]
        alone: dict[str, dict[str, float]] = {}
        for done, site in enumerate(rounded):
            context.progress("measuring what each value costs", done / len(rounded))
            alone[site.value] = noise.of([site])
        chosen = refused(alone, weights, {name: 10 ** (-goal / 10) for name, goal in goals.items()})
        values = {str(v.name): v for v in (*model.graph.inputs, *(v for n in model.graph for v in n.outputs))}
        for name in alone if chosen is None else chosen:
            value = values.get(name)
            if value is None:
                continue
            what = "the rounded weights alone miss the fidelity goal" if chosen is None else "8 bits here cost too much"
            cost = max(alone[name].values())
            if context.record.change(value, f"stays float: {what} ({decibels(cost):.1f} dB SQNR alone)"):
                fact = metadata.get(value, metadata.EVIDENCE) or {}
                reason = f"{what} at {value.name}"
                metadata.put(value, metadata.EVIDENCE, fact | {"refused": reason})


def _measured(model: ir.Model, feeds: Sequence[Feeds], context: Context) -> Noise | None:
    """The noise of the model as `quantize` would leave it; None, with a note, where it does not run."""
    trial = model.clone()
    Quantize().run(trial, Context(target=context.target))
    try:
        return Noise(trial, model, few_samples(model, feeds, _runs(model, trial, feeds)))
    except ModelError as error:
        context.record.note(f"the effect of 8 bits could not be measured: {error.what}")
        return None


def _of_weights(noise: Noise) -> dict[str, float]:
    return noise.of([site for site in noise.sites if site.kind == "weights"])


def _runs(model: ir.Model, trial: ir.Model, feeds: Sequence[Feeds]) -> int:
    """How many samples are affordable: what a network that is silent on one answers to on another counts."""
    shapes = {name: array.shape for name, array in few_samples(model, feeds, 1)[0].items()}
    values = sum(1 for node in trial.graph if node.op_type == "QuantizeLinear")
    macs = summary(with_shapes(model, shapes)).macs * max(values, 1)
    return int(np.clip(_MACS / max(macs, 1), _FEWEST, _MOST))


def fidelity_goals(model: ir.Model, pictures: float, decisions: float) -> dict[str, float]:
    """The SQNR in dB that each output is to have: that of a picture, of a signal (at most 35), or of decisions."""
    goals = {str(value.name): decisions for value in model.graph.outputs}
    for value in signals(model):
        goals[str(value.name)] = pictures if is_picture(value) else min(pictures, _SIGNALS)
    return goals


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

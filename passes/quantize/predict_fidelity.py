"""`predict-fidelity`: how far the outputs will be from the float model's on real data, and what each layer adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...errors import ModelError
from ...ir.cost import summary
from ...ir.execute import Session
from ...ir.graph import weight_bytes
from ...ir.probe import LARGEST_OBSERVED, with_shapes
from ..base import Pass
from ..context import Array, Context, Feeds
from .calibration import Prediction, predicted
from .sensitivity import Noise, decibels, few_feeds, few_samples, power

__all__ = ["PredictFidelity", "changed", "observed_db", "outputs_on_real_data"]

_LAYER_MACS = 4e9  # a second of arithmetic for all layers together
_MOST_SAMPLES = 4  # runs for each layer
_OUTPUT_RUNS = 6  # for the outputs
_CLEAR = 4  # one in so many made inputs stands for real ones, where there are decisions
_SHOWN = 3  # layers in the note; all of them are in the report


@dataclass(frozen=True)
class PredictFidelity(Pass):
    """SQNR and agreement of decisions to expect on real data, with errors; each layer's noise alone. Changes nothing.

    The result is compared with the model before its first pass that is not exact, on the user's samples or else on
    synthesised inputs. With samples, data-free int8 is made too, to say what they bought. layers: also measure layer
    by layer.
    """

    layers: bool = True
    name: ClassVar[str] = "predict-fidelity"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        before, feeds = context.unrounded, list(context.data or context.synthetic or ())
        reason = _why_not(model, before, feeds)
        if reason or before is None:
            context.record.skip("model", reason)
            return
        real = bool(context.data)
        try:
            outputs = outputs_on_real_data(before, model, few_feeds(feeds, _OUTPUT_RUNS), real)
            layers = self._by_layer(model, before, feeds, context) if self.layers else {}
        except ModelError as error:
            context.record.skip("model", f"it does not run: {error.what}")
            return
        prediction: dict[str, object] = {
            "inputs": "samples" if real else "synthesised",
            "outputs": [p.to_json() for p in outputs],
            "layers": _ranked(model, layers),
        }
        context.record.measures["prediction"] = prediction
        if real and (bought := _without_samples(before, feeds, context)):
            prediction["without_samples"] = bought
            gains = [f"{name} {p.sqnr_db - bought[name]:+.1f} dB" for p in outputs if (name := p.output) in bought]
            context.record.note(f"what the samples bought over data-free int8: {', '.join(gains[:_SHOWN])}")
        context.record.skip("model", "nothing is rewritten: the prediction is in the report")
        for text in _notes(outputs, layers):
            context.record.note(text)

    def _by_layer(
        self, model: ir.Model, before: ir.Model, feeds: Sequence[Feeds], context: Context
    ) -> dict[str, dict[str, float]]:
        """Noise of each layer alone; on few samples, fewer still where a run is long."""
        few = few_samples(model, feeds, _MOST_SAMPLES)
        shapes = {name: array.shape for name, array in few[0].items()}
        macs = summary(with_shapes(before, shapes)).macs * sum(1 for n in model.graph if n.op_type == "QuantizeLinear")
        count = int(np.clip(_LAYER_MACS / max(macs, 1), 1, _MOST_SAMPLES))
        return Noise(model, before, few_samples(model, feeds, count)).by_layer(context.progress)


def _without_samples(before: ir.Model, feeds: Sequence[Feeds], context: Context) -> dict[str, float]:
    """SQNR in dB, on the samples, of the default data-free int8 of the same model; empty where none can be made."""
    from ..defaults import int8
    from ..manager import PassManager

    trial, without = before.clone(), Context(target=context.target, seed=context.seed)
    PassManager(int8(context.target)).run(trial, without)
    if without.synthetic is None:
        return {}
    found = outputs_on_real_data(before, trial, few_feeds(feeds, _OUTPUT_RUNS), real=True)
    return {p.output: round(p.sqnr_db, 2) for p in found}


def _why_not(model: ir.Model, before: ir.Model | None, feeds: Sequence[Feeds]) -> str:
    if before is None:
        return "no pass before it may have changed a result"
    if not feeds:
        return "no inputs to compare on: none could be made, and no samples were given"
    size = weight_bytes(model)
    return f"{size >> 20} MiB of weights are too many to run the model" if size > LARGEST_OBSERVED else ""


def outputs_on_real_data(
    before: ir.Model, after: ir.Model, feeds: Sequence[Feeds], real: bool, fitted: dict[str, Any] | None = None
) -> list[Prediction]:
    """The prediction for every output from both models' results on the feeds."""
    exact, rounded = Session(before), Session(after)
    pairs = [(exact(feed), rounded(feed)) for feed in feeds]
    found = []
    for name in pairs[0][0]:
        ours, theirs = [p[0][name] for p in pairs], [p[1][name] for p in pairs]
        found.append(predicted(name, observed_db(ours, theirs, real), changed(ours, theirs), real, fitted))
    return found


def observed_db(exact: Sequence[Array], rounded: Sequence[Array], real: bool) -> float:
    """SQNR in dB on the inputs at hand; of score vectors on made inputs: on the quarter that is decided most clearly.

    Training makes decisions clear on its data: what a network is unsure of stands least for it.
    """
    if real or changed(exact, rounded) is None:
        return decibels(power(exact, rounded))
    scores, others = np.concatenate(exact), np.concatenate(rounded)
    highest = np.sort(scores, axis=1)
    clear = np.argsort(highest[:, -2] - highest[:, -1], kind="stable")[: -(-len(scores) // _CLEAR)]
    return decibels(power([scores[clear]], [others[clear]]))


def changed(reference: Sequence[Array], other: Sequence[Array]) -> float | None:
    """Share of rows whose arg max differs; None where the values are not rows of at least three real scores."""
    if reference[0].ndim != 2 or reference[0].shape[1] < 3 or not np.issubdtype(reference[0].dtype, np.floating):
        return None
    differ = [r.argmax(1) != o.argmax(1) for r, o in zip(reference, other, strict=True)]
    return float(np.mean(np.concatenate(differ)))


def _ranked(model: ir.Model, layers: Mapping[str, Mapping[str, float]]) -> list[dict[str, object]]:
    """Layers in the order of the model: the SQNR in dB that each alone would leave at the output it harms most, and its
    share of the noise of all.
    """
    operators = {str(node.name): node.op_type for node in model.graph}
    place = {name: number for number, name in enumerate(operators)}
    worst = {name: max(noise.values()) for name, noise in layers.items()}
    total = sum(worst.values()) or 1.0
    return [
        {
            "layer": name,
            "op": operators.get(name, ""),
            "sqnr_db": round(decibels(worst[name]), 2),
            "share": round(worst[name] / total, 4),
        }
        for name in sorted(layers, key=lambda name: place.get(name, -1))
    ]


def _notes(outputs: Sequence[Prediction], layers: Mapping[str, Mapping[str, float]]) -> list[str]:
    worst = min(outputs, key=lambda p: p.sqnr_db)
    text = f"predicted on real data: {worst.output} {worst.sqnr_db:.1f} ± {worst.error_db:.1f} dB SQNR"
    if worst.agreement is not None and worst.least is not None:
        text += f", {worst.agreement:.1%} of decisions as before (at least {worst.least:.1%})"
    hurting = sorted(layers, key=lambda name: -max(layers[name].values()))[:_SHOWN]
    listed = [f"{name} ({decibels(max(layers[name].values())):.1f} dB alone)" for name in hurting]
    return [text] + ([f"layers that cost most: {', '.join(listed)}"] if listed else [])

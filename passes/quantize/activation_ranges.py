"""`activation-ranges`: evidence for the range of every activation, attached to the value with its source."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...errors import ModelError
from ...ir import metadata
from ...ir.graph import is_constant, static_shape, weight_bytes
from ...ir.probe import LARGEST_OBSERVED, Probe, channel_axis, renormalised, with_shapes
from ...ir.propagate import clip_bounds, propagated
from ...ir.statistics import Moments
from ..base import Pass
from ..context import Context, Feeds

__all__ = ["ActivationRanges", "bounds"]

# results that an operator cannot exceed, whatever its input
_BOUNDED: Mapping[str, tuple[float, float]] = {
    "Abs": (0.0, np.inf),
    "Erf": (-1.0, 1.0),
    "Exp": (0.0, np.inf),
    "HardSigmoid": (0.0, 1.0),
    "ReduceL2": (0.0, np.inf),
    "Relu": (0.0, np.inf),
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Softplus": (0.0, np.inf),
    "Sqrt": (0.0, np.inf),
    "Tanh": (-1.0, 1.0),
}
# an extreme that so many channels share, to so much of the range, is the operator's own: GELU and Swish have one
_SHARING, _SAME, _FEWEST_CHANNELS = 0.25, 0.01, 8
# results that lie between the lowest and highest of their input (zeros are padded only into what holds 0)
_KEEPS_BOUNDS = frozenset(
    {
        "AveragePool",
        "DepthToSpace",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "MaxPool",
        "ReduceMean",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)

_SMALLEST_RANGE = 255 * float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class ActivationRanges(Pass):
    """Range of each activation: from the user's samples, else from inputs synthesised before, brought to the BatchNorm
    statistics wherever the graph has or had them; cut to what the operator can produce

    margin: how much wider than observed on synthetic inputs, and wider still where a channel was seen seldom
    (`growth`); real samples are taken as they are.
    deviations: how many σ around μ a channel with known statistics spans where no input could be made.
    """

    margin: float = 1.5
    deviations: float = 6.0
    name: ClassVar[str] = "activation-ranges"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        shaped = with_shapes(model)
        names = [str(v.name) for v in _activations(shaped)]
        facts = self._observed(shaped, names, context) or self._from_statistics(shaped)
        inferred = {v.name: v for node in shaped.graph for v in node.outputs}
        for value in _activations(model, inferred):
            fact = facts.get(str(value.name))
            if fact is None:
                context.record.skip(value, "no statistics, and no input to observe it on")
            elif not np.isfinite([fact["low"], fact["high"]]).all() or fact["high"] - fact["low"] <= 0:
                context.record.skip(value, "the observed range is empty or not finite")
            elif fact["high"] - fact["low"] < _SMALLEST_RANGE:
                context.record.skip(value, "the observed range is too small for a scale in float32")
            elif context.record.change(value, f"{fact['low']:.4g} … {fact['high']:.4g} ({fact['source']})"):
                metadata.put(value, metadata.EVIDENCE, fact)

    def _observed(self, model: ir.Model, names: Sequence[str], context: Context) -> dict[str, dict[str, Any]]:
        feeds, source, margin = _feeds(context, self.margin)
        if not feeds or weight_bytes(model) > LARGEST_OBSERVED:
            return {}
        known = source != "samples" and any(
            metadata.get(v, metadata.STATISTICS) for n in model.graph for v in n.outputs
        )
        try:
            observed = Probe(renormalised(model) if known else model, names)(feeds)
        except ModelError as error:
            context.record.note(f"the model could not be observed: {error.what}")
            return {}
        fed = with_shapes(model, {name: array.shape for name, array in feeds[0].items()})
        sizes = {str(v.name): static_shape(v) for v in _activations(fed)}
        values = {str(v.name): v for v in _activations(model)}
        source += ", renormalised" if known else ""
        facts = {}
        for name, moments in observed.items():
            value, shape = values[name], sizes.get(name)
            seen = len(feeds) * math.prod(shape) // len(moments.mean) if shape else None
            wider = margin * growth(seen) if seen and source != "samples" else margin
            facts[name] = _fact(value, moments, wider, source, _before_activation(value, observed))
        return facts

    def _from_statistics(self, model: ir.Model) -> dict[str, dict[str, Any]]:
        facts = {}
        known = propagated(model, self.deviations)
        for value in _activations(model):
            if value in known:
                facts[str(value.name)] = _fact(value, known[value], 1.0, "BatchNorm statistics")
        return facts


def _feeds(context: Context, margin: float) -> tuple[Sequence[Feeds], str, float]:
    if context.data:
        return context.data, "samples", 1.0
    return context.synthetic or (), "synthetic inputs", margin


def _activations(model: ir.Model, inferred: Mapping[str | None, ir.Value] | None = None) -> list[ir.Value]:
    """The float32 values of the main graph that have a channel axis or at least one dimension."""
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    found = []
    for value in values:
        known = (inferred or {}).get(value.name, value)
        if known.dtype == ir.DataType.FLOAT and known.shape is not None and len(known.shape) and not is_constant(value):
            value.dtype, value.shape = known.dtype, known.shape.copy()
            found.append(value)
    return found


def bounds(value: ir.Value) -> tuple[float, float]:
    """The interval that the operators producing the value cannot leave."""
    node = value.producer()
    if node is None:
        return -np.inf, np.inf
    if node.op_type == "Clip":
        return clip_bounds(node)
    if node.op_type in _KEEPS_BOUNDS and node.inputs[0] is not None:
        return bounds(node.inputs[0])
    return _BOUNDED.get(node.op_type, (-np.inf, np.inf))


def _before_activation(value: ir.Value, observed: Mapping[str, Moments]) -> Moments | None:
    """The moments that tell how far a value may reach: of a ReLU's or Clip's input, of any other result itself."""
    node = value.producer()
    if node is None:
        return None
    source = node.inputs[0] if node.op_type in ("Relu", "Clip") else value
    return observed.get(str(source.name)) if source is not None else None


def growth(seen: int, expected: float = 1e4) -> float:
    """√(ln expected / ln seen), at least 1: how much further the extreme of so many normal numbers lies than that of
    the few that were seen of a channel. Scores and pooled features are seen once a sample.
    """
    return max(float(np.sqrt(np.log(expected) / np.log(max(seen, 2)))), 1.0)


def given(value: ir.Value) -> bool:
    """True for an input of the graph, also where only its elements were moved since."""
    node = value.producer()
    if node is None:
        return value.is_graph_input()
    moved = node.op_type in _KEEPS_BOUNDS or node.op_type == "Pad"
    return moved and node.inputs[0] is not None and given(node.inputs[0])


def shared_extremes(moments: Moments) -> tuple[bool, bool]:
    """Whether the lowest and the highest value are such that the operator stops there, not the inputs."""
    low, high = moments.range
    if len(moments.low) < _FEWEST_CHANNELS or not high > low:
        return False, False
    near_low = np.mean(moments.low - low <= _SAME * (high - low))
    near_high = np.mean(high - moments.high <= _SAME * (high - low))
    return bool(near_low >= _SHARING), bool(near_high >= _SHARING)


def reach(moments: Moments, silent: float = -np.inf, spreads: float = 4.0, typical: float = 2.0) -> tuple[float, float]:
    """μ_c ± `spreads`·max(σ_c, |μ_c|/`typical`) over all channels.

    A channel whose mean is far from 0 beside its spread was not excited: trained ones have |μ| ≲ 2σ on their own data
    (a detector's objectness is silent on inputs without objects), so its real spread is at least |μ|/2. Channels that
    never rise above `silent`, the bound of the ReLU behind them, are left out: training leaves many dead.
    """
    spread = spreads * np.maximum(moments.std, np.abs(moments.mean) / typical)
    finite = np.isfinite(spread) & (moments.high > silent)
    if not finite.any():
        return 0.0, 0.0
    return float((moments.mean - spread)[finite].min()), float((moments.mean + spread)[finite].max())


def _fact(
    value: ir.Value, moments: Moments, margin: float, source: str, unbounded: Moments | None = None
) -> dict[str, Any]:
    low, high = moments.range
    lower, upper = bounds(value)
    if not given(value):  # the range of an input is part of the hypothesis; nothing is beyond it
        low_is_bound, high_is_bound = shared_extremes(moments)
        far_low, far_high = low * margin if low < 0 else low, high * margin if high > 0 else high
        if unbounded is not None and source != "samples":
            least, most = reach(unbounded, lower)
            far_low, far_high = min(far_low, least), max(far_high, most)
        low, high = low if low_is_bound else far_low, high if high_is_bound else far_high
    fact = {"low": max(low, lower), "high": min(high, upper), "source": source}
    if channel_axis(value) is not None:
        fact |= {"mean": [float(f"{m:.6g}") for m in moments.mean], "axis": channel_axis(value)}
    return fact

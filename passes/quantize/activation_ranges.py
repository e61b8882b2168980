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
from ...ir.propagate import propagated
from ...ir.statistics import Moments
from ..base import Pass
from ..context import Array, Context, Feeds
from .bounds import bounds, given, holder
from .clipping import mse_range
from .head_room import depths, far, pre_activation, reach, shared_extremes, silent, widened
from .sensitivity import few_feeds
from .signals import signals

__all__ = ["ActivationRanges"]

_SMALLEST_RANGE = 255 * float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class ActivationRanges(Pass):
    """Range of each activation: from the user's samples, else from inputs synthesised before, brought to the BatchNorm
    statistics wherever the graph has or had them; cut to what the operator can produce

    margin: how much further than observed on synthetic inputs channels may move from their means at the first layers,
    which answer to edges; deep: at the last ones, which answer to objects that made inputs lack; between them
    margin·(deep/margin)^(depth^onset): features turn from general to specific late. Where a detector found nothing in
    any input, depth itself counts; where a signal comes out, or words go in, there are no objects to lack. Wider still
    where a channel was seen seldom (`growth`), but no wider than what `expected` samples would reach, by how the
    extremes of single samples scatter. Real samples are taken as they are.
    deviations: how many σ around μ a channel with known statistics spans where no input could be made.
    """

    margin: float = 1.1
    deep: float = 2.0
    onset: float = 3.0
    expected: float = 1e6
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
        feeds, source = (context.data, "samples") if context.data else (context.synthetic or (), "synthetic inputs")
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
        facts: dict[str, dict[str, Any]] = {}
        depth, onset = depths(model), 1.0 if silent(model, observed) else self.onset
        deep = self.deep if _recognises(model, feeds[0]) else self.margin
        drawn = {str(v.name): _drawn(feeds, str(v.name)) for v in model.graph.inputs if v.dtype == ir.DataType.FLOAT}
        source += ", renormalised" if known else ""
        for name, moments in observed.items():
            value, shape = values[name], sizes.get(name)
            seen = len(feeds) * math.prod(shape) // len(moments.mean) if shape else None
            ends = moments.range
            if source != "samples" and (root := given(value)) is not None:
                ends = drawn[str(root.name)]
            elif source != "samples":
                specific = depth.get(value, 1.0) ** onset
                factor = self.margin ** (1 - specific) * deep**specific
                ends = self._with_head_room(moments, seen, _samples(feeds), factor)
            centred = pre_activation(value)
            unbounded = observed.get(str(centred.name)) if centred is not None else None
            whole = holder(value)
            within = facts.get(str(whole.name)) if whole is not None else None
            facts[name] = _fact(value, moments, source, ends, unbounded, within)
        if source == "synthetic inputs" and context.likeliest:
            _take_means(facts, model, context.likeliest)
        return facts

    def _with_head_room(self, moments: Moments, seen: int | None, samples: int, factor: float) -> tuple[float, float]:
        """The range with the head-room that inputs which only stand for real ones ask for."""
        low, high = widened(moments, seen, factor)
        if moments.peaks is None:
            return low, high
        lowest, highest = moments.peaks.T
        return max(low, -far(-lowest, samples, self.expected)), min(high, far(highest, samples, self.expected))

    def _from_statistics(self, model: ir.Model) -> dict[str, dict[str, Any]]:
        facts = {}
        known = propagated(model, self.deviations)
        for value in _activations(model):
            if value in known:
                facts[str(value.name)] = _fact(value, known[value], "BatchNorm statistics", known[value].range)
        return facts


def _take_means(facts: dict[str, dict[str, Any]], model: ir.Model, feeds: Sequence[Feeds]) -> None:
    """Means on these feeds. Ranges cover every convention that inputs may follow, biases are corrected for the
    likeliest: corrected for the mean of several they suit none.
    """
    names = [name for name, fact in facts.items() if "mean" in fact]
    for name, moments in Probe(model, names, extremes=False)(few_feeds(feeds, -(-len(feeds) // 2))).items():
        facts[name]["mean"] = _rounded(moments.mean)


def _rounded(means: Array) -> list[float]:
    return [float(f"{mean:.6g}") for mean in means]


def _recognises(model: ir.Model, feed: Feeds) -> bool:
    """True where objects decide: no signal comes out, and what goes in are not words, of which all were drawn from."""
    return not signals(model) and any(np.issubdtype(array.dtype, np.floating) for array in feed.values())


def _samples(feeds: Sequence[Feeds]) -> int:
    """How many samples the feeds hold: the first axis of what carries them counts them, of options it is shorter."""
    return sum(min((len(array) for array in feed.values() if array.ndim), default=1) for feed in feeds)


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


def _drawn(feeds: Sequence[Feeds], name: str) -> tuple[float, float]:
    """The range of made inputs that 8 bits hold with the least error: known ends of pictures, without chance tails."""
    return mse_range(np.concatenate([np.asarray(feed[name]).ravel() for feed in feeds]))


def _fact(
    value: ir.Value,
    moments: Moments,
    source: str,
    ends: tuple[float, float],
    unbounded: Moments | None = None,
    within: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """ends: the range with its head-room; unbounded: what the operator's own bound cuts; within: the fact of a value
    that this one cannot leave, as all its elements come from there.
    """
    low, high = ends
    lower, upper = bounds(value)
    if given(value) is None:
        low_is_bound, high_is_bound = shared_extremes(moments)
        far_low, far_high = ends
        if unbounded is not None and source != "samples":
            least, most = reach(unbounded, lower)
            far_low, far_high = min(far_low, least), max(far_high, most)
        low = moments.range[0] if low_is_bound else far_low
        high = moments.range[1] if high_is_bound else far_high
    if within is not None:
        lower, upper = max(lower, within["low"]), min(upper, within["high"])
    fact = {"low": max(low, lower), "high": min(high, upper), "source": source}
    if channel_axis(value) is not None:
        fact |= {"mean": _rounded(moments.mean), "axis": channel_axis(value)}
    return fact

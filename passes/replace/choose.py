"""Which layers to replace by what: candidates of every layer, their cost on the target, the least total error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.execute import Session
from ...ir.fidelity import sqnr
from ...ir.layers import Layer, layer_of
from ..context import Context, Feeds
from ..prune.allocate import allocate
from ..prune.costs import measure
from .factory import Candidate, Factory, Site
from .grouped import grouped
from .linear import linear
from .low_rank import canonical, channel, spatial, tucker
from .rewrite import alone, insert
from .separable import separable, separable_pairs

__all__ = ["FACTORIES", "Choice", "Offer", "choose", "offers", "output_noise", "same", "sensitivities"]

# name in the pass's option -> factory
FACTORIES: Mapping[str, Factory] = {
    "separable": separable,
    "separable-pairs": separable_pairs,
    "low-rank-channel": channel,
    "low-rank-spatial": spatial,
    "tucker": tucker,
    "cp": canonical,
    "low-rank": linear,
    "grouped": grouped,
}


@dataclass(frozen=True)
class Offer:
    """A layer and the replacements that cost less than it does. saving: of each, in the budget's unit."""

    site: Site
    candidates: tuple[Candidate, ...]
    savings: tuple[float, ...]


@dataclass(frozen=True)
class Choice:
    """One layer's replacement."""

    site: Site
    candidate: Candidate


def offers(sites: Iterable[Site], names: Sequence[str], unit: str, context: Context) -> list[Offer]:
    """What the factories offer for every layer; what is not faster on the target is refused with both figures."""
    found = []
    for site in sites:
        own = alone(site.layer, None)
        before = measure(unit, own, context.target, context.cost)
        cycles = measure("latency", own, context.target, context.cost)
        kept: list[tuple[Candidate, float]] = []
        slower: list[tuple[float, Candidate]] = []
        for candidate in (c for name in names for c in FACTORIES[name](site)):
            model = alone(site.layer, candidate.pieces)
            after = measure("latency", model, context.target, context.cost)
            if after >= cycles:
                slower.append((after, candidate))
            elif (saving := before - measure(unit, model, context.target, context.cost)) > 0:
                kept.append((candidate, saving))
        if kept:
            found.append(Offer(site, tuple(c for c, _ in kept), tuple(s for _, s in kept)))
        elif slower:
            after, candidate = min(slower, key=lambda item: item[0])
            context.record.skip(
                site.node, f"no replacement is faster: {cycles:.0f} cycles, {candidate} takes {after:.0f} (estimated)"
            )
        else:
            context.record.skip(site.node, f"no factory of {', '.join(names)} makes it smaller")
    return found


def sensitivities(model: ir.Model, offered: Sequence[Offer], feeds: Sequence[Feeds]) -> list[float]:
    """Noise in the outputs per unit of error in each layer: one trial a layer, with its candidate of middling error.

    The error is the one on these feeds: what a candidate is expected to miss may be more than they show.
    """
    found = []
    for offer in offered:
        trial = model.clone()
        candidate = sorted(offer.candidates, key=lambda c: c.error)[len(offer.candidates) // 2]
        insert(trial.graph, same(trial, offer.site.layer), candidate.pieces)
        noise, missed = _noises(model, trial, feeds, str(offer.site.layer.output.name))
        found.append(noise / max(missed, 1e-9))
    return found


def output_noise(original: ir.Model, changed: ir.Model, feeds: Sequence[Feeds]) -> float:
    """Power of the change beside the signal's, in the output that changes most."""
    return _noises(original, changed, feeds)[0]


def _noises(
    original: ir.Model, changed: ir.Model, feeds: Sequence[Feeds], value: str | None = None
) -> tuple[float, float]:
    """`output_noise`, and the share of a value's variance, over its channels together, that the change takes."""
    outputs = [str(v.name) for v in original.graph.outputs]
    fetch = list(dict.fromkeys([*outputs, *([value] if value else [])]))
    results = []
    for model in (original, changed):
        session = Session(model, fetch)
        runs = [session(feed) for feed in feeds]
        results.append({name: np.concatenate([run[name].ravel() for run in runs]) for name in fetch})
    before, after = results
    noise = max(float(10.0 ** (-sqnr(before[name], after[name]) / 10.0)) for name in outputs)
    if value is None:
        return noise, 0.0
    wrong = float(np.mean(np.square(after[value] - before[value], dtype=np.float64)))
    return noise, wrong / max(float(np.var(before[value], dtype=np.float64)), 1e-30)


def choose(offered: Sequence[Offer], weights: Sequence[float], wanted: float) -> list[Choice] | None:
    """The replacements with the least sum of weighted errors that save `wanted`; None when all together do not."""
    errors = [np.array([0.0, *(w * c.error for c in o.candidates)]) for o, w in zip(offered, weights, strict=True)]
    savings = [np.array([0.0, *o.savings]) for o in offered]
    asked = wanted
    while (picked := allocate(errors, savings, asked)) is not None:  # it rounds savings up: ask for more until enough
        short = wanted - sum(float(s[level]) for s, level in zip(savings, picked, strict=True))
        if short <= 0:
            break
        asked += max(short, wanted / 1000)
    if picked is None:
        return None
    return [Choice(o.site, o.candidates[level - 1]) for o, level in zip(offered, picked, strict=True) if level]


def same(model: ir.Model, layer: Layer) -> Layer:
    """The layer of a copy that has the result of the same name."""
    for node in model.graph:
        found = layer_of(node)
        if found is not None and found.output.name == layer.output.name:
            return found
    raise LookupError(layer.output.name)

"""Noise at the outputs of a quantized model, site by site: measured by opening the gates of one site at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.execute import Session
from .gates import Site, gated

__all__ = ["Noise", "decibels", "few_feeds", "few_samples", "power"]

Array = npt.NDArray[np.generic]
Feeds = Mapping[str, Array]
Powers = dict[str, float]


class Noise:
    """Noise power at every output of a Q/DQ model, relative to its signal, with chosen gates open and the others shut.

    exact: the model before rounding. Signals are those with every gate shut, on the same feeds.
    """

    def __init__(self, model: ir.Model, exact: ir.Model, feeds: Sequence[Feeds]) -> None:
        graph, self.sites = gated(model, exact)
        self._session = Session(graph)
        self._feeds = list(feeds)
        self._signals = self._run([])

    def of(self, opened: Sequence[Site]) -> Powers:
        """With the gates of these sites open."""
        made = self._run(opened)
        return {name: power([s[name] for s in self._signals], [m[name] for m in made]) for name in self._signals[0]}

    def total(self) -> Powers:
        """With every gate open."""
        return self.of(self.sites)

    def by_layer(self, progress: Callable[[str, float], None] | None = None) -> dict[str, Powers]:
        """Each layer alone: its weights and the activation it leaves; inputs of the model are layers of their own."""
        layers: dict[str, list[Site]] = {}
        for site in self.sites:
            layers.setdefault(site.layer, []).append(site)
        found = {}
        for done, (layer, sites) in enumerate(layers.items()):
            if progress is not None:
                progress("measuring what each layer costs", done / len(layers))
            found[layer] = self.of(sites)
        return found

    def _run(self, opened: Sequence[Site]) -> list[dict[str, Array]]:
        chosen = {site.gate for site in opened}
        states = {s.gate: np.asarray(s.gate in chosen) for s in self.sites}
        return [self._session({**feed, **states}) for feed in self._feeds]


def power(reference: Sequence[Array], other: Sequence[Array]) -> float:
    """Σ(x − r)² / Σr² over all samples; ∞ where a result is not finite, 0 where there is no signal."""
    signal = noise = 0.0
    for r, x in zip(reference, other, strict=True):
        exact = np.asarray(r, np.float64)
        with np.errstate(invalid="ignore"):
            error = np.asarray(x, np.float64) - exact
        if not np.isfinite(exact).all() or not np.isfinite(error).all():
            return np.inf
        signal, noise = signal + float(np.square(exact).sum()), noise + float(np.square(error).sum())
    return noise / signal if signal > 0 else 0.0


def decibels(noise: float) -> float:
    """SQNR of a relative noise power, at most 200 dB."""
    return float(-10 * np.log10(max(noise, 1e-20)))


def few_feeds(feeds: Sequence[Feeds], count: int) -> list[Feeds]:
    """At most `count` of the feeds, evenly spread."""
    chosen = np.linspace(0, len(feeds) - 1, min(count, len(feeds))).round().astype(int)
    return [feeds[i] for i in np.unique(chosen)]


def few_samples(model: ir.Model, feeds: Sequence[Feeds], count: int) -> list[Feeds]:
    """At most `count` of the feeds; one sample of each where every input takes any number of them."""
    chosen = few_feeds(feeds, count)
    if any(v.shape is None or not len(v.shape) or isinstance(v.shape[0], int) for v in model.graph.inputs):
        return chosen
    return [{name: array[:1] for name, array in feed.items()} for feed in chosen]

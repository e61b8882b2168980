"""What removing part of a group does to the outputs of the model, the rest left as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.channels import Group, analyze, zero
from ...ir.cost import summary
from ...ir.execute import Session
from ...ir.layers import Floats, Layer
from .consumers import Consumer, consumers
from .evidence import Moments
from .reconstruct import gram_reconstruction

__all__ = ["Sensitivity"]

Array = npt.NDArray[np.generic]
Feeds = Sequence[Mapping[str, Array]]
Ints = npt.NDArray[np.int64]

_MEASURED = (0.125, 0.25, 0.5)  # shares of a group at which outputs are measured; interpolated between
_IDLE = 1e-3  # share of the error of all units, below which those that are gone left none
_SAMPLES = 64  # samples the outputs are measured on, at most
_MACS = 5e9  # of one measurement: half a second; large pictures have enough positions to average over in a few samples


class Sensitivity:
    """Relative squared error of a model's outputs on some feeds when units go: Σ‖y − y′‖² / Σ‖y − ȳ‖².

    ridge: consumers are refitted with it; None leaves them as they are.
    """

    def __init__(self, model: ir.Model, feeds: Feeds, moments: Mapping[str, Moments], ridge: float | None) -> None:
        macs = max(summary(model).macs, 1)
        few = _few(feeds, max(1, min(_SAMPLES, int(_MACS / macs))))
        self._model, self._feeds, self._moments, self._ridge = model, few, moments, ridge
        self._reference = self._run(model)

    def errors(self, group: Group, order: Ints, levels: Ints, local: Floats | None) -> Floats:
        """Error at every level, units going in the given order: measured at a few levels, log-linear between them.

        local: the summed error of the consumers after each unit, where it is known. Its shape is exact at every level,
        so what is interpolated is the gain from it to the outputs. Units that leave no error, neither there nor at the
        outputs, tell nothing of it: levels are measured behind them.
        """
        idle = 0 if local is None else int(np.searchsorted(local, _IDLE * local[-1]))
        shares = [idle + round(s * (len(group) - idle)) for s in _MEASURED]
        at = np.unique([max(1, level) for level in shares if level <= levels.max() + 1] or [1])
        measured = np.array([max(self(group, order[:n]), 1e-12) for n in at])
        measured = np.maximum.accumulate(measured)
        shape = np.maximum(np.arange(len(group) + 1.0) if local is None else local, 1e-12)
        gain = np.exp(np.interp(np.log(np.maximum(levels, 1)), np.log(at), np.log(measured / shape[at])))
        return np.asarray(np.where(levels == 0, 0.0, shape[levels] * gain))

    def __call__(self, group: Group, removed: Ints) -> float:
        """The error when the units at the indices `removed` go."""
        copy = self._model.clone()
        channels = analyze(copy)
        zero(copy, channels, group.units[removed])
        if self._ridge is not None:
            mine = next(g for g in channels.groups if g.name == group.name and np.array_equal(g.units, group.units))
            for consumer, theirs in zip(consumers(mine), consumers(group), strict=True):
                moments = self._moments.get(theirs.layer.name)
                if moments is not None:
                    _refit(consumer, theirs.layer, removed, moments, self._ridge)
        outputs = self._run(copy)
        error = spread = 0.0
        for name, reference in self._reference.items():
            error += float(((outputs[name] - reference) ** 2).sum()) / max(_spread(reference), 1e-30)
            spread += 1.0
        return error / spread if np.isfinite(error) else np.inf

    def _run(self, model: ir.Model) -> dict[str, Floats]:
        session = Session(model, optimized=True)
        runs = [session(feed) for feed in self._feeds]
        numeric = [n for n, v in runs[0].items() if np.issubdtype(v.dtype, np.floating)]
        return {n: np.concatenate([np.asarray(r[n], np.float64).ravel() for r in runs]) for n in numeric}


def _few(feeds: Feeds, samples: int) -> Feeds:
    sizes = np.cumsum([max(len(next(iter(feed.values()))), 1) for feed in feeds])
    return feeds[: int(np.searchsorted(sizes, samples)) + 1]


def _spread(values: Floats) -> float:
    return float(((values - values.mean()) ** 2).sum())


def _refit(consumer: Consumer, original: Layer, removed: Ints, moments: Moments, ridge: float) -> None:
    full = original.matrix()
    flat = full.reshape(len(full), -1)
    kept = np.ones(flat.shape[1], bool)
    kept[consumer.columns[removed].ravel()] = False
    fitted = np.zeros_like(flat)
    fitted[:, kept] = gram_reconstruction(flat, moments.covariance, kept, moments.ridge(ridge))
    offset = original.offset() + (flat - fitted) @ moments.mean if original.has_offset else original.offset()
    consumer.layer.store(fitted.reshape(full.shape), offset)

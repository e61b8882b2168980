"""What removing part of a group does to the outputs of the model, the rest left as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.channels import Group, Member, analyze, zero
from ...ir.execute import Session
from .evidence import Moments
from .layers import Floats, Layer, layer_of
from .reconstruct import gram_reconstruction
from .structured_obs import Problem

__all__ = ["Consumer", "OutputError", "consumers", "problems"]

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int64]

# Made inputs excite deep layers along fewer directions than real ones: part of the correlation they show is not there
# on real inputs, so that share of every covariance is taken as independent variance.
_DOUBT = 0.25


@dataclass(frozen=True)
class Consumer:
    """A layer that reads a group, and which of its feature columns belong to each unit: [units, m]."""

    layer: Layer
    columns: Ints


def consumers(group: Group) -> list[Consumer]:
    """The linear layers that read the group's channels."""
    found = []
    for member in group.members:
        if member.role == "in":
            for use in member.value.uses():
                layer = layer_of(use.node)
                if layer is not None and not layer.depthwise:
                    found.append(Consumer(layer, _columns(layer, member)))
    return found


def _columns(layer: Layer, member: Member) -> Ints:
    taps = layer.matrix().shape[2]
    return np.asarray((member.positions[:, :, None] * taps + np.arange(taps)).reshape(len(member.positions), -1))


def problems(group: Group, moments: Mapping[str, Moments]) -> list[Problem]:
    """The consumers as elimination problems, each in units of the variance of its outputs."""
    found = []
    for consumer in consumers(group):
        if consumer.layer.name in moments:
            weight = consumer.layer.matrix()
            flat = weight.reshape(len(weight), -1)
            gram = moments[consumer.layer.name].covariance
            energy = moments[consumer.layer.name].energy
            noise = moments[consumer.layer.name].ridge(0.0) * np.trace(gram) / len(gram) * np.eye(len(gram))
            doubted = (1 - _DOUBT) * gram + _DOUBT * np.diag(np.diag(gram)) + noise
            found.append(Problem(flat, doubted, consumer.columns, 1 / max(energy, 1e-30)))
    return found


class OutputError:
    """Relative squared error of a model's outputs on some feeds when units go: Σ‖y − y′‖² / Σ‖y − ȳ‖²."""

    def __init__(self, model: ir.Model, feeds: Sequence[Mapping[str, Array]], moments: Mapping[str, Moments]) -> None:
        self._model, self._feeds, self._moments = model, feeds, moments
        self._reference = self._run(model)

    def __call__(self, group: Group, removed: Ints, ridge: float | None) -> float:
        """The error when the units at the indices `removed` go; consumers are refitted unless `ridge` is None."""
        copy = self._model.clone()
        channels = analyze(copy)
        zero(copy, channels, group.units[removed])
        if ridge is not None:
            mine = next(g for g in channels.groups if g.name == group.name and np.array_equal(g.units, group.units))
            for consumer, theirs in zip(consumers(mine), consumers(group), strict=True):
                moments = self._moments.get(theirs.layer.name)
                if moments is not None:
                    _refit(consumer, theirs.layer, removed, moments, ridge)
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

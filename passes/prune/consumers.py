"""The linear layers that read a group of channels, and what losing channels costs each as a least-squares problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...ir.channels import Group, Member
from ...ir.layers import Floats, Layer, layer_of
from .evidence import Moments
from .structured_obs import Problem

__all__ = ["Consumer", "believed", "consumers", "problems"]

Ints = npt.NDArray[np.int64]

# Made inputs excite deep layers along fewer directions than real ones: part of the correlation they show is not there
# on real inputs, so that share of every covariance is taken as independent variance.
_DOUBT = 0.25
# Without statistics from training, they also leave channels idle that real ones use. On real inputs the logarithms of
# the variances of a layer's inputs deviate by about this much, where training had BatchNorm and they can be known.
_SPREAD = 0.5
_IDLE = 1e-3  # of the mean variance: what is below is all the same


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


def problems(group: Group, moments: Mapping[str, Moments], believe: Callable[[Layer, Floats], Floats]) -> list[Problem]:
    """The consumers as elimination problems, each in units of the variance of its outputs.

    believe: the covariance to count on, for a layer and the covariance that was seen.
    """
    found = []
    for consumer in consumers(group):
        seen = moments.get(consumer.layer.name)
        if seen is not None:
            weight = consumer.layer.matrix()
            flat = weight.reshape(len(weight), -1)
            gram = believe(consumer.layer, seen.covariance)
            gram = gram + seen.ridge(0.0) * np.trace(gram) / len(gram) * np.eye(len(gram))
            added = float(np.einsum("oi,ij,oj->", flat, gram - seen.covariance, flat, optimize=True))
            found.append(Problem(flat, gram, consumer.columns, 1 / max(seen.energy + added, 1e-30)))
    return found


def believed(covariance: Floats, trained: bool) -> Floats:
    """What made inputs let us believe of a covariance [n, n]: less correlation, and less spread between variances.

    Deviations from the geometric mean of the variances shrink until their logarithms have the deviation _SPREAD, unless
    the scale is known from training; then _DOUBT of every variance is taken as independent.
    """
    if not trained:
        variance = np.diag(covariance)
        idle = np.maximum(_IDLE * max(float(variance.mean()), 1e-30) - variance, 0.0)
        logarithm = np.log(variance + idle)
        share = min(1.0, _SPREAD / max(float(logarithm.std()), 1e-12))
        scale = np.exp((share - 1) / 2 * (logarithm - logarithm.mean()))
        covariance = (covariance + np.diag(idle)) * scale[:, None] * scale
    return np.asarray((1 - _DOUBT) * covariance + _DOUBT * np.diag(np.diag(covariance)))

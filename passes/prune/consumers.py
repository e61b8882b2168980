"""The linear layers that read a group of channels, and what losing channels costs each as a least-squares problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...ir.channels import Group, Member
from ...ir.layers import Layer, layer_of
from .evidence import Moments
from .structured_obs import Problem

__all__ = ["Consumer", "consumers", "problems"]

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

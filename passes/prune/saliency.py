"""What a unit is worth: one score per unit of a group from its weights alone, or from activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.channels import Group, Member
from ...ir.graph import constant
from ...ir.layers import Floats, layer_of
from .consumers import consumers
from .evidence import Moments
from .taylor import taylor

__all__ = ["SALIENCIES", "Activity", "bn_scale", "coupled_bound", "fpgm", "l1", "l2", "producer_rows", "random"]


def l1(rows: Floats) -> Floats:
    """Σ|w| of every row (Li et al. 2017). rows: [units, weights]."""
    return np.asarray(np.abs(rows).sum(1))


def l2(rows: Floats) -> Floats:
    """√Σw² of every row."""
    return np.asarray(np.sqrt((rows**2).sum(1)))


def fpgm(rows: Floats) -> Floats:
    """Σ_k ‖w_j − w_k‖: the distances to all others; the smallest lie at the geometric median (He et al. 2019)."""
    squares = (rows**2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * rows @ rows.T
    return np.asarray(np.sqrt(np.maximum(distances, 0)).sum(1))


def bn_scale(scales: Floats) -> Floats:
    """|γ| of the BatchNorm behind a unit (Liu et al. 2017). scales: [units, BatchNorms]."""
    return np.asarray(np.abs(scales).sum(1))


def coupled_bound(producers: Floats, consumers: Floats) -> Floats:
    """Σ|W_B|·|W_A| per unit: a bound on what its removal changes in the consumers' outputs (DFPC, ICLR 2023).

    producers: [units, weights of all feeders]; consumers: [units, weights of all readers]; the sum over all
    (feeder, reader) pairs of ‖|W_B[:, c]|·|W_A[c, :]|‖₁ factors into the product of the two sums.
    """
    return l1(producers) * l1(consumers)


def random(units: int, rng: np.random.Generator) -> Floats:
    """Uniform scores, the control that every criterion must beat."""
    return rng.random(units)


def producer_rows(group: Group, role: str = "out") -> Floats:
    """[units, n]: all weights of one role that belong to each unit, every tensor in units of its own mean magnitude."""
    parts = [_slices(m) for m in group.members if m.role == role and m.value.shape is not None]
    scaled = [p / max(float(np.abs(p).mean()) * np.sqrt(p.shape[1]), 1e-30) for p in parts if p.size]
    return np.concatenate(scaled, axis=1) if scaled else np.zeros((len(group), 1))


def _slices(member: Member) -> Floats:
    contents = constant(member.value)
    assert contents is not None
    moved = np.moveaxis(np.asarray(contents, np.float64), member.axis, 0)
    flat = moved.reshape(moved.shape[0], -1)[member.positions]
    return np.asarray(flat.reshape(len(member.positions), -1))


def _batch_norms(group: Group) -> Floats:
    scales = [
        _slices(m)
        for m in group.members
        if any(use.node.op_type == "BatchNormalization" and use.idx == 1 for use in m.value.uses())
    ]
    return np.concatenate(scales, axis=1) if scales else producer_rows(group)


@dataclass
class Activity:
    """What the criteria that look at activations need: the observed moments, and the model to differentiate."""

    model: ir.Model
    moments: Mapping[str, Moments]
    feeds: Sequence[Mapping[str, npt.NDArray[np.generic]]]
    rng: np.random.Generator

    @cached_property
    def effects(self) -> Mapping[str, Floats]:
        """First-order effect of every channel of every layer's input on the outputs."""
        layers = [layer for node in self.model.graph if (layer := layer_of(node)) is not None]
        axes = {str(x.node.inputs[0].name): 1 if x.node.op_type == "Conv" else -1 for x in layers if x.node.inputs[0]}
        return taylor(self.model, axes, self.feeds, self.rng)


def _attention(group: Group, activity: Activity) -> Floats:
    """Mean magnitude of the activations that the consumers read (AAP's attention); l1 where none was observed."""
    found = [
        np.sqrt(np.diag(m.covariance) + m.mean**2)[c.columns].mean(1)
        for c in consumers(group)
        if (m := activity.moments.get(c.layer.name)) is not None
    ]
    return np.asarray(np.mean(found, axis=0)) if found else l1(producer_rows(group))


def _taylor(group: Group, activity: Activity) -> Floats:
    """First-order change of the outputs over all consumers; l1 where no gradient reaches them."""
    found = []
    for consumer in consumers(group):
        source = consumer.layer.node.inputs[0]
        effects = activity.effects.get(str(source.name)) if activity.feeds and source is not None else None
        if effects is not None:
            taps = consumer.layer.matrix().shape[2]
            found.append(effects[consumer.columns[:, ::taps] // taps].sum(1))
    return np.asarray(np.sum(found, axis=0)) if found else l1(producer_rows(group))


# criterion -> scores of a group's units; the lowest go first
SALIENCIES: Mapping[str, Callable[[Group, Activity], Floats]] = {
    "l1": lambda group, _: l1(producer_rows(group)),
    "l2": lambda group, _: l2(producer_rows(group)),
    "fpgm": lambda group, _: fpgm(producer_rows(group)),
    "bn-scale": lambda group, _: bn_scale(_batch_norms(group)),
    "dfpc": lambda group, _: coupled_bound(producer_rows(group), producer_rows(group, "in")),
    "taylor": _taylor,
    "attention": _attention,
    "random": lambda group, activity: random(len(group), activity.rng),
}

"""What a unit is worth: one score per unit of a group from its weights alone, or from activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ...ir.channels import Group, Member
from ...ir.graph import constant
from .layers import Floats

__all__ = ["SALIENCIES", "bn_scale", "coupled_bound", "fpgm", "l1", "l2", "producer_rows", "random"]


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


Attention = Mapping[str, Floats]  # mean |activation| per unit, by group name


def _attention(group: Group, attention: Attention, rng: np.random.Generator) -> Floats:
    return attention[group.name] if group.name in attention else l1(producer_rows(group))


# criterion -> scores of a group's units; the lowest go first
SALIENCIES: Mapping[str, Callable[[Group, Attention, np.random.Generator], Floats]] = {
    "l1": lambda group, _a, _r: l1(producer_rows(group)),
    "l2": lambda group, _a, _r: l2(producer_rows(group)),
    "fpgm": lambda group, _a, _r: fpgm(producer_rows(group)),
    "bn-scale": lambda group, _a, _r: bn_scale(_batch_norms(group)),
    "dfpc": lambda group, _a, _r: coupled_bound(producer_rows(group), producer_rows(group, "in")),
    "attention": _attention,
    "random": lambda group, _a, rng: random(len(group), rng),
}

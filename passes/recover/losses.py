"""Distances between what a student and its teacher compute: decisions, values, feature maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

__all__ = ["FEATURES", "attention", "divergence", "relative_error", "similarity", "transfer"]

Tensor = Any


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`T²·KL(softmax(z_T/T) ‖ softmax(z_S/T))`, mean over the batch. Source: Hinton et al. 2015; SQAKD with T = 4."""
    target = functional.log_softmax(teacher / temperature, -1)
    found = functional.log_softmax(student / temperature, -1)
    rows = (target.exp() * (target - found)).sum(-1)
    return temperature**2 * rows.mean()


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """`‖s − t‖² / ‖t − t̄‖²`: the share of the teacher's variance that the student misses."""
    spread = (teacher - teacher.mean()).square().mean()
    return (student - teacher).square().mean() / spread.clamp_min(1e-12)


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """AT: `mean (â_S − â_T)²` of unit-norm maps `Σ_c A²`. Source: Zagoruyko & Komodakis, ICLR 2017."""
    maps = [functional.normalize(a.square().mean(1).flatten(1), dim=1) for a in (student, teacher)]
    return (maps[0] - maps[1]).square().mean()


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """SP: `‖Ĝ_S − Ĝ_T‖²_F / b²` of row-normalised Gram matrices over the batch. Source: Tung & Mori, ICCV 2019."""
    grams = []
    for a in (student, teacher):
        flat = a.flatten(1)
        grams.append(functional.normalize(flat @ flat.T, dim=1))
    return (grams[0] - grams[1]).square().mean()


def transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """PKT: KL of neighbourhood probabilities under cosine similarity. Source: Passalis & Tefas, ECCV 2018."""
    shares = []
    for a in (student, teacher):
        flat = functional.normalize(a.flatten(1), dim=1)
        kernel = (flat @ flat.T + 1.0) / 2.0
        shares.append(kernel / kernel.sum(1, keepdim=True))
    found, target = shares
    return (target * torch.log((target + 1e-7) / (found + 1e-7))).mean()


# name -> (loss, weight beside the divergence, as in Blakeney et al., "Simon Says")
FEATURES: Mapping[str, tuple[Callable[[Tensor, Tensor], Tensor], float]] = {
    "at": (attention, 1000.0),
    "sp": (similarity, 3000.0),
    "pkt": (transfer, 30000.0),
}

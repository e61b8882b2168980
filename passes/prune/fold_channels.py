"""`fold-channels`: Model Folding, similar channels become one, without any input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir import shapes
from ...ir.channels import Group, Member, analyze, remove
from ...ir.graph import constant
from ...ir.layers import Floats
from ..base import Pass
from ..context import Context
from .folding import fold, k_means, variance_repair
from .saliency import producer_rows

__all__ = ["FoldChannels"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FoldChannels(Pass):
    """y = W₂·f(W₁x)  ⇒  y ≈ (W₂Mᵀ)·f((MMᵀ)⁻¹M·W₁x), M the clusters of similar rows of every group

    ratio: share of every group's units that are folded into others; repair: scale what was averaged back to its
    variance (Fold-AR). "Forget the Data and Fine-Tuning! Just Fold the Network to Compress", ICLR 2025.
    """

    ratio: float = 0.25
    repair: bool = True
    name: ClassVar[str] = "fold-channels"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        shapes.infer(model)
        channels = analyze(model)
        gone: list[Ints] = []
        for group in channels.groups:
            clusters = len(group) - round(self.ratio * len(group))
            if group.frozen or group.inexact:
                context.record.skip(group.name, group.frozen or group.inexact)
            elif not 0 < clusters < len(group):
                context.record.skip(group.name, "too few units for the ratio")
            elif context.record.change(group.name, f"{len(group)} → {clusters} units"):
                gone.append(_fold_group(group, clusters, self.repair, context.rng()))
        if gone:
            remove(model, channels, channels.spare(np.concatenate(gone)))
            shapes.infer(model)


def _fold_group(group: Group, clusters: int, repair: bool, rng: np.random.Generator) -> Ints:
    """Write every cluster into its first unit, and return the others."""
    rows = producer_rows(group)
    member = k_means(rows, clusters, rng)
    factors = variance_repair(rows, member) if repair else np.ones(clusters)
    first = np.array([int(np.flatnonzero(member == c)[0]) for c in range(clusters)])
    for place in group.members:
        _fold_member(place, member, first, factors)
    return np.delete(group.units, first)


def _fold_member(place: Member, member: Ints, first: Ints, factors: Floats) -> None:
    contents = constant(place.value)
    assert contents is not None
    if not np.issubdtype(contents.dtype, np.floating):
        return
    array = np.moveaxis(np.asarray(contents, np.float64), place.axis, 0).copy()
    for column in place.positions.T:  # one copy of every unit: gates of an LSTM, taps of a flattened map
        folded = fold(array[column], member, 0, "sum" if place.role == "in" else "mean")
        if place.role == "out" and array.ndim > 1:
            folded *= factors.reshape(-1, *[1] * (array.ndim - 1))
        array[column[first]] = folded
    made = np.moveaxis(array, 0, place.axis).astype(contents.dtype)
    place.value.const_value = ir.Tensor(np.ascontiguousarray(made), name=place.value.name)

"""L-DNQ: weights at few levels that are powers of two, by the alternating direction method of multipliers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .gptq import loss

__all__ = ["admm", "power_levels", "project"]

Floats = npt.NDArray[np.float64]

_ALTERNATIONS = 4  # of levels and step within one projection


def power_levels(count: int) -> Floats:
    """0, 1, 2, 4, …: the magnitudes of `count` levels 0, ±1, ±2, ±4, …"""
    return np.asarray([0.0, *(2.0**k for k in range((count - 1) // 2))])


def project(values: Floats, magnitudes: Floats) -> Floats:
    """The nearest of ±magnitudes to each value."""
    middles = (magnitudes[1:] + magnitudes[:-1]) / 2
    return np.asarray(np.sign(values) * magnitudes[np.searchsorted(middles, np.abs(values))])


def admm(weight: Floats, hessian: Floats, magnitudes: Floats, iterations: int = 50) -> tuple[Floats, Floats]:
    """Levels q and steps α of each row with small (w − αq)ᵀ H (w − αq), q in ±magnitudes.

    Θ ← (H + ρI)⁻¹(H w + ρ(G − λ)); G ← α·q nearest to Θ + λ, α = ⟨Θ + λ, q⟩/⟨q, q⟩; λ ← λ + Θ − G, with ρ the mean
    diagonal of H. The best G is returned, not the last: the set of levels is not convex.
    weight: [groups, rows, n]; hessian: [groups, n, n]. (Chen, Wang, Pan 2019)
    """
    n = weight.shape[2]
    rho = np.maximum(np.einsum("gii->g", hessian) / n, 1e-30)[:, None, None]
    inverse = np.linalg.inv(hessian + rho * np.eye(n))
    pull = weight @ hessian
    step = np.maximum(np.abs(weight).mean(2), 1e-30)
    levels, step = _nearest(weight, step, magnitudes)
    dual = np.zeros_like(weight)
    best, best_levels, best_step = loss(weight, levels * step[:, :, None], hessian), levels, step
    for _ in range(iterations):
        free = (pull + rho * (levels * step[:, :, None] - dual)) @ inverse
        levels, step = _nearest(free + dual, step, magnitudes)
        dual = dual + free - levels * step[:, :, None]
        found = loss(weight, levels * step[:, :, None], hessian)
        better = found < best
        best = np.where(better, found, best)
        best_levels = np.where(better[:, :, None], levels, best_levels)
        best_step = np.where(better, step, best_step)
    return best_levels, best_step


def _nearest(values: Floats, step: Floats, magnitudes: Floats) -> tuple[Floats, Floats]:
    """Levels and step of least squared error for each row, alternating from a step."""
    levels = project(values / step[:, :, None], magnitudes)
    for _ in range(_ALTERNATIONS):
        square = np.square(levels).sum(2)
        fitted = (values * levels).sum(2) / np.maximum(square, 1e-30)
        step = np.where((square > 0) & (fitted > 0), fitted, step)
        levels = project(values / step[:, :, None], magnitudes)
    return levels, step

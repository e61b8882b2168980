"""Model Folding and neuron merging: removed channels are merged into similar ones, from weights alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...ir.layers import Floats

__all__ = ["fold", "k_means", "merge_map", "variance_repair"]

Ints = npt.NDArray[np.int64]


def k_means(rows: Floats, clusters: int, rng: np.random.Generator, rounds: int = 50) -> Ints:
    """Cluster index of every row: k-means++ seeds, Lloyd's rounds until nothing moves; every cluster has a row."""
    centres = rows[[int(rng.integers(len(rows)))]]
    for _ in range(1, clusters):
        nearest = _distances(rows, centres).min(1)
        total = float(nearest.sum())
        weights = nearest / total if total > 0 else np.full(len(rows), 1 / len(rows))
        centres = np.concatenate([centres, rows[[int(rng.choice(len(rows), p=weights))]]])
    member = np.full(len(rows), -1)
    for _ in range(rounds):
        distances = _distances(rows, centres)
        moved = distances.argmin(1)
        for empty in np.setdiff1d(np.arange(clusters), moved):  # the worst placed row starts a cluster that lost all
            crowded = np.bincount(moved, minlength=clusters)[moved] > 1
            moved[int(np.argmax(np.where(crowded, distances[np.arange(len(rows)), moved], -1)))] = empty
        if np.array_equal(moved, member):
            break
        member = moved
        centres = np.stack([rows[member == c].mean(0) for c in range(clusters)])
    return member.astype(np.int64)


def _distances(rows: Floats, centres: Floats) -> Floats:
    squares = (rows**2).sum(1)[:, None] + (centres**2).sum(1)[None]
    return np.asarray(np.maximum(squares - 2 * rows @ centres.T, 0))


def fold(array: Floats, member: Ints, axis: int, how: str) -> Floats:
    """M·A (`sum`, for axes that consume channels) or (M·Mᵀ)⁻¹·M·A (`mean`, for axes that produce them) along an axis.

    M is the 0/1 matrix of `member`, the cluster of every channel (Wang et al., "Forget the Data…", ICLR 2025).
    """
    one_hot = np.eye(int(member.max()) + 1)[member]
    folded = np.tensordot(one_hot.T, array, axes=(1, axis))
    if how == "mean":
        folded /= one_hot.sum(0).reshape(-1, *[1] * (array.ndim - 1))
    return np.asarray(np.moveaxis(folded, 0, axis))


def variance_repair(rows: Floats, member: Ints) -> Floats:
    """√(n/(1+(n−1)ρ)) per cluster: what the mean of n channels of correlation ρ must be scaled by (Fold-AR).

    The mean of n unit-variance channels has variance (1+(n−1)ρ)/n; ρ is taken as the mean cosine of the rows.
    """
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    factors = np.ones(int(member.max()) + 1)
    for c in range(len(factors)):
        mine = unit[member == c]
        n = len(mine)
        if n > 1:
            rho = (float((mine @ mine.T).sum()) - n) / (n * (n - 1))
            factors[c] = np.sqrt(n / max(1 + (n - 1) * rho, 1.0))
    return factors


def merge_map(rows: Floats, kept: Ints, ridge: float) -> Floats:
    """S [channels, kept]: every channel as a ridge combination of the kept ones, wᵢ ≈ Σ_j S_ij w_j (LBYL).

    Kept channels are themselves; the consumer becomes W₂·S.
    """
    basis = rows[kept]
    gram = basis @ basis.T
    damped = gram + ridge * float(np.trace(gram)) / len(kept) * np.eye(len(kept))
    combination = np.linalg.solve(damped, basis @ rows.T).T
    combination[kept] = np.eye(len(kept))
    return np.asarray(combination)

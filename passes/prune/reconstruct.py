"""Least squares: consumer weights that reproduce the original outputs from the channels that are left."""

from __future__ import annotations

import numpy as np

from ...ir.layers import Floats

__all__ = ["gram_reconstruction", "refit"]


def gram_reconstruction(weight: Floats, gram: Floats, kept: Floats, ridge: float = 0.0) -> Floats:
    """W_K + W_R·G_RK·(G_KK + λI)⁻¹: weights on the kept inputs K closest to W in the output, given G = E[x xᵀ].

    R is the rest. At λ = 0 this is W·G_{:,K}·G_KK⁻¹; the ridge pulls towards W_K, so that nothing changes where nothing
    was removed. weight: [outputs, n]; gram: [n, n]; kept: indices or mask of K; ridge: λ in units of the mean diagonal.
    """
    index = np.flatnonzero(kept) if np.asarray(kept).dtype == bool else np.asarray(kept, int)
    rest = np.setdiff1d(np.arange(len(gram)), index)
    inner = gram[np.ix_(index, index)]
    damped = inner + ridge * max(float(np.trace(inner)) / max(len(index), 1), 1e-12) * np.eye(len(index))
    return np.asarray(weight[:, index] + np.linalg.solve(damped, gram[np.ix_(index, rest)] @ weight[:, rest].T).T)


_ROUNDS = 12  # alternating projections: the loss falls by less than a hundredth in a round from there on


def refit(
    weight: Floats,
    offset: Floats,
    x: Floats,
    y: Floats,
    ridge: float,
    within: tuple[Floats, Floats] | None = None,
) -> tuple[Floats, Floats]:
    """argmin Σ(y − x·Wᵀ − b)² + λ‖W − W₀‖²: weights for changed inputs x and wanted outputs y, close to W₀.

    weight: W₀ [outputs, n]; offset: b₀ [outputs]; x: [samples, n]; y: [samples, outputs]; ridge: λ in units of the mean
    variance of an input, to which n/samples is added: what few samples seem to say about many inputs is mostly chance.
    The bias is not penalised. within: (lowest, highest) like y; an output anywhere between them is as good as y, since
    an activation clips it. That is a convex problem: project the fit on the intervals, fit the projection, repeat.
    """
    mean_x = x.mean(0, dtype=np.float64)
    centred = x - mean_x.astype(x.dtype)
    covariance = np.asarray(centred.T @ centred, np.float64)
    inputs = max(len(covariance), 1)
    damping = (ridge + inputs / len(x)) * max(float(np.trace(covariance)) / inputs, 1e-12)
    inverse = np.linalg.inv(covariance + damping * np.eye(len(covariance)))
    start = centred @ weight.T.astype(x.dtype)
    fitted, bias, aim = weight, offset, y
    for _ in range(1 if within is None else _ROUNDS):
        mean_y = aim.mean(0, dtype=np.float64)
        wrong = (aim - mean_y.astype(x.dtype)) - start
        fitted = weight + (inverse @ (centred.T @ wrong)).T
        bias = mean_y - fitted @ mean_x
        if within is not None:
            aim = np.clip(x @ fitted.T.astype(x.dtype) + bias.astype(x.dtype), *within)
    return fitted, bias

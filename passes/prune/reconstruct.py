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
_FACTORS = 4.0 ** np.arange(8)  # of the ridge, from which unseen rows choose
_UNSEEN = 0.25  # share of the rows, the last ones, that choose


def refit(
    weight: Floats,
    offset: Floats,
    x: Floats,
    y: Floats,
    ridge: float,
    within: tuple[Floats, Floats] | None = None,
) -> tuple[Floats, Floats]:
    """argmin Σ(y − x·Wᵀ − b)² + λ‖W − W₀‖²: weights for changed inputs x and wanted outputs y, close to W₀.

    weight: W₀ [outputs, n]; offset: b₀ [outputs]; x: [samples, n]; y: [samples, outputs]; ridge: the least λ in units
    of the mean variance of an input, to which n/samples is added: what few samples seem to say about many inputs is
    mostly chance. Rows of one picture are no independent samples, so the last quarter of the rows, which should come
    from other inputs than the rest, chooses the multiple of it that fits them best. The bias is not penalised.
    within: (lowest, highest) like y; an output anywhere between them is as good as y, since an activation clips it.
    That is a convex problem: project the fit on the intervals, fit the projection, repeat.
    """
    seen = len(x) - int(_UNSEEN * len(x))
    least = ridge + max(x.shape[1], 1) / len(x)
    if seen < len(x):
        trial = _Regression(weight, x[:seen])
        rest = x[seen:]
        aims = (y[seen:], y[seen:]) if within is None else (within[0][seen:], within[1][seen:])

        def missed(factor: float) -> float:
            fitted, bias = trial.fit(y[:seen], least * factor)
            found = rest @ fitted.T.astype(x.dtype) + bias.astype(x.dtype)
            return float(((found - np.clip(found, *aims)) ** 2).sum(dtype=np.float64))

        least *= min(_FACTORS, key=missed)
    whole = _Regression(weight, x)
    fitted, bias = whole.fit(y, least)
    for _ in range(0 if within is None else _ROUNDS - 1):
        assert within is not None
        aim = np.clip(x @ fitted.T.astype(x.dtype) + bias.astype(x.dtype), *within)
        fitted, bias = whole.fit(aim, least)
    return fitted, bias


class _Regression:
    """Ridge regression towards given weights, for one set of inputs and any outputs and ridges."""

    def __init__(self, weight: Floats, x: Floats) -> None:
        self._weight = weight
        self._mean = x.mean(0, dtype=np.float64)
        self._centred = x - self._mean.astype(x.dtype)
        self._start = self._centred @ weight.T.astype(x.dtype)
        self._values, self._vectors = np.linalg.eigh(np.asarray(self._centred.T @ self._centred, np.float64))

    def fit(self, y: Floats, ridge: float) -> tuple[Floats, Floats]:
        """Weights and bias; ridge in units of the mean variance of an input."""
        mean = y.mean(0, dtype=np.float64)
        wrong = (y - mean.astype(y.dtype)) - self._start
        damping = ridge * max(float(self._values.mean()), 1e-12) if len(self._values) else 1.0
        solved = (self._vectors.T @ (self._centred.T @ wrong)) / (np.maximum(self._values, 0) + damping)[:, None]
        fitted = self._weight + (self._vectors @ solved).T
        return fitted, mean - fitted @ self._mean

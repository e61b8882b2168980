"""Similarity of two representations of the same samples: linear CKA, SVCCA and PWCCA, from streaming covariances."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["MEASURES", "Covariances", "linear_cka", "pwcca", "svcca"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

_KEPT = 0.99  # share of the variance that SVCCA's components hold (Raghu et al. 2017)
_NEGLIGIBLE = 1e-10  # variance of a direction beside the largest one, below which it is rounding noise


class Covariances:
    """Sums over samples of x, y, xxᵀ, yyᵀ and xyᵀ, so that no activation is kept; x and y may differ in width."""

    def __init__(self, x_width: int, y_width: int) -> None:
        self.count = 0
        self._x, self._y = np.zeros(x_width), np.zeros(y_width)
        self._xx, self._yy = np.zeros((x_width, x_width)), np.zeros((y_width, y_width))
        self._xy = np.zeros((x_width, y_width))

    def add(self, x: Array, y: Array) -> None:
        """Count samples: one row each, channels in columns."""
        a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
        self.count += len(a)
        self._x += a.sum(0)
        self._y += b.sum(0)
        self._xx += a.T @ a
        self._yy += b.T @ b
        self._xy += a.T @ b

    @property
    def xx(self) -> Floats:
        return self._xx - np.outer(self._x, self._x) / self.count

    @property
    def yy(self) -> Floats:
        return self._yy - np.outer(self._y, self._y) / self.count

    @property
    def xy(self) -> Floats:
        return self._xy - np.outer(self._x, self._y) / self.count


def linear_cka(c: Covariances) -> float:
    """`‖YᵀX‖²_F / (‖XᵀX‖_F · ‖YᵀY‖_F)` of centred columns; 1 for maps equal up to rotation and one scale.

    Source: Kornblith et al., ICML 2019.
    """
    scale = np.linalg.norm(c.xx) * np.linalg.norm(c.yy)
    if not scale:  # a constant representation is like another constant one and like nothing else
        return float(not np.any(c.xx) and not np.any(c.yy))
    return float(np.sum(c.xy**2) / scale)


def svcca(c: Covariances) -> float:
    """Mean canonical correlation of the directions that hold 99 % of each side's variance.

    Source: Raghu et al., NIPS 2017. Needs several times as many samples as channels, else it tends to 1.
    """
    return float(np.mean(_canonical(c, _KEPT)[0]))


def pwcca(c: Covariances) -> float:
    """`Σ αᵢρᵢ / Σ αᵢ`, `αᵢ = Σⱼ |⟨hᵢ, xⱼ⟩|`: canonical correlations, weighted by what each variate tells of x.

    Source: Morcos et al., NeurIPS 2018. The same under an invertible linear map of y.
    """
    correlations, variates = _canonical(c, 1.0)
    weights = np.abs(variates.T @ c.xx).sum(1)[: len(correlations)]
    total = weights.sum()
    return float(correlations @ weights / total) if total else 1.0


# name -> measure; 1 is the same representation, 0 none in common
MEASURES: Mapping[str, Callable[[Covariances], float]] = {"cka": linear_cka, "svcca": svcca, "pwcca": pwcca}


def _canonical(c: Covariances, kept: float) -> tuple[Floats, Floats]:
    """Canonical correlations, largest first, and x's canonical variates as columns of coefficients."""
    left, right = _whitening(c.xx, kept), _whitening(c.yy, kept)
    if not left.shape[1] or not right.shape[1]:
        return np.array([float(left.shape[1] == right.shape[1])]), np.zeros((len(c.xx), 1))
    rotation, correlations, _ = np.linalg.svd(left.T @ c.xy @ right, full_matrices=False)
    return np.clip(correlations, 0.0, 1.0), left @ rotation


def _whitening(covariance: Floats, kept: float) -> Floats:
    """Columns that turn centred samples into uncorrelated ones of norm 1, for the directions that hold `kept`."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    real = values > _NEGLIGIBLE * max(values[0], 0.0)
    values, vectors = values[real], vectors[:, real]
    if kept < 1.0 and len(values):
        needed = int(np.searchsorted(np.cumsum(values) / values.sum(), kept)) + 1
        values, vectors = values[:needed], vectors[:, :needed]
    whitening: Floats = vectors / np.sqrt(values)
    return whitening

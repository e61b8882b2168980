"""Moments of the values on a graph's edges: clipped-normal formulas, and the moments observed on given inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Moments", "add", "affine", "clipped", "normal_cdf", "normal_pdf", "of_statistics"]

Floats = npt.NDArray[np.float64]

# Abramowitz and Stegun 7.1.26 has |error| ≤ 1.5e-7: far below what a range of 8 bits can show
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean, standard deviation and range of a value, one number per channel (or one in all).

    peaks: lowest and highest over all channels of each sample, [samples, 2], where they were observed.
    """

    mean: Floats
    std: Floats
    low: Floats
    high: Floats
    peaks: Floats | None = None

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest over all channels that hold numbers; (0, 0) when none does."""
        finite = np.isfinite(self.low) & np.isfinite(self.high)
        if not finite.any():
            return 0.0, 0.0
        return float(self.low[finite].min()), float(self.high[finite].max())

    def over_channels(self) -> Moments:
        """The moments of all channels taken together, as those of one."""
        mean, square = self.mean.mean(), (self.std**2 + self.mean**2).mean()
        parts = (mean, np.sqrt(max(square - mean**2, 0.0)), self.low.min(), self.high.max())
        return Moments(*(np.asarray([part]) for part in parts))

    @staticmethod
    def pooled(parts: Iterable[Moments]) -> Moments:
        """The moments of equally large samples taken together; over all channels where their number differs."""
        items = list(parts)
        if len(items) == 1:
            return items[0]
        if len({m.mean.shape for m in items}) > 1:
            items = [m.over_channels() for m in items]
        mean = np.mean([m.mean for m in items], axis=0)
        square = np.mean([m.std**2 + m.mean**2 for m in items], axis=0)
        low, high = np.min([m.low for m in items], axis=0), np.max([m.high for m in items], axis=0)
        known = [m.peaks for m in items if m.peaks is not None]
        peaks = np.concatenate(known) if len(known) == len(items) else None
        with np.errstate(invalid="ignore"):  # ∞ − ∞, where a channel holds what is not finite
            return Moments(mean, np.sqrt(np.maximum(square - mean**2, 0.0)), low, high, peaks)


def normal_pdf(x: Floats) -> Floats:
    """φ(x) = exp(−x²/2) / √(2π)."""
    return np.asarray(np.exp(-0.5 * np.square(x)) / np.sqrt(2 * np.pi))


def normal_cdf(x: Floats) -> Floats:
    """Φ(x) = (1 + erf(x/√2)) / 2, to 1e-7."""
    z = np.abs(x) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * z)
    tail = sum(c * t ** (i + 1) for i, c in enumerate(_ERF)) * np.exp(-z * z)
    return np.asarray(np.where(x >= 0, 1.0 - 0.5 * tail, 0.5 * tail))


def clipped(m: Moments, lower: float, upper: float) -> Moments:
    """Moments of clip(z, l, u) for z ~ N(μ, σ²); ReLU is l = 0, u = ∞ (Nagel et al. 2019, appendix C).

    With a = (l−μ)/σ, b = (u−μ)/σ, P = Φ(b)−Φ(a):
    E = lΦ(a) + u(1−Φ(b)) + μP + σ(φ(a)−φ(b));  E² likewise with σ²(aφ(a)−bφ(b)) + 2μσ(φ(a)−φ(b)) + (μ²+σ²)P.
    """
    mean, std = np.asarray(m.mean, np.float64), np.maximum(np.asarray(m.std, np.float64), 1e-12)
    below, under, at_low, edge_low = _side(lower, mean, std)
    above, over, at_high, edge_high = _side(upper, mean, std)
    inside = above - below
    first = under * below + over * (1 - above) + mean * inside + std * (at_low - at_high)
    second = under**2 * below + over**2 * (1 - above) + (mean**2 + std**2) * inside
    second += std**2 * (edge_low - edge_high) + 2 * mean * std * (at_low - at_high)
    spread = np.sqrt(np.maximum(second - first**2, 0.0))
    return Moments(first, spread, np.clip(m.low, lower, upper), np.clip(m.high, lower, upper))


def _side(bound: float, mean: Floats, std: Floats) -> tuple[Floats, float, Floats, Floats]:
    """Φ(t), the bound (0 when infinite: its probability is 0), φ(t) and tφ(t) at t = (bound − μ)/σ."""
    if not np.isfinite(bound):
        zeros = np.zeros_like(mean)
        return (zeros if bound < 0 else zeros + 1.0), 0.0, zeros, zeros
    t = (bound - mean) / std
    return normal_cdf(t), bound, normal_pdf(t), t * normal_pdf(t)


def add(parts: Iterable[Moments]) -> Moments:
    """Moments of a sum of independent values; its range is the sum of the ranges."""
    items = list(parts)
    variance = sum(np.square(m.std) for m in items)
    return Moments(
        np.asarray(sum(m.mean for m in items)),
        np.asarray(np.sqrt(variance)),
        np.asarray(sum(m.low for m in items)),
        np.asarray(sum(m.high for m in items)),
    )


def affine(m: Moments, scale: Floats, shift: Floats) -> Moments:
    """Moments of scale·x + shift."""
    ends = np.stack([m.low * scale + shift, m.high * scale + shift])
    return Moments(m.mean * scale + shift, m.std * np.abs(scale), ends.min(0), ends.max(0))


def of_statistics(fact: Mapping[str, Any], deviations: float) -> Moments:
    """The moments that a BatchNorm left behind; the range is μ ± `deviations`·σ."""
    mean, std = np.asarray(fact["mean"], np.float64), np.abs(np.asarray(fact["std"], np.float64))
    return Moments(mean, std, mean - deviations * std, mean + deviations * std)

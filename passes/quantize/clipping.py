"""Clipping: the largest magnitude, or the range, to keep such that rounding and clipping together err least."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["mse_magnitude", "mse_range"]

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.generic]

_SHARES = np.linspace(1.0, 0.3, 36)  # of max|w|; the first is no clipping, so that the result never errs more
_MOST_VALUES = 1 << 18  # that a range is judged on


def mse_magnitude(weight: Array, axis: int | None, low: int, high: int) -> Floats:
    """argmin over m ≤ max|w| of Σ (w − s·clip(rint(w/s), low, high))², s = m/high; per slice along `axis`."""
    values = np.asarray(weight, np.float32)
    rows = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    largest = np.abs(rows).max(1, initial=0.0).astype(np.float64)
    best, least = largest.copy(), np.full(len(rows), np.inf)
    safe = np.where(largest > 0, largest, 1.0)
    for share in _SHARES:
        scale = (safe * share / high).astype(np.float32)[:, None]
        scale = np.where(scale > 0, scale, np.float32(1.0))
        error = np.square(np.clip(np.rint(rows / scale), low, high) * scale - rows).sum(1, dtype=np.float64)
        better = error < least
        best[better], least[better] = (largest * share)[better], error[better]
    return np.asarray(best[0] if axis is None else best)


def mse_range(values: Array, levels: int = 255) -> tuple[float, float]:
    """argmin over l, h of ((h − l)/levels)²/12 + E[(x − h)₊²] + E[(l − x)₊²]; l ≤ 0 ≤ h, within the values' own range.

    Where many values lie at an end, as in pictures, the end stays; tails that were reached by chance are cut.
    """
    flat = np.asarray(values).ravel()
    x = np.sort(flat[:: -(-len(flat) // _MOST_VALUES)].astype(np.float64))
    lows, highs = _SHARES * min(float(flat.min()), 0.0), _SHARES * max(float(flat.max()), 0.0)
    clipped = np.array([_beyond(-x[::-1], -low) for low in lows])[:, None] + [_beyond(x, high) for high in highs]
    error = np.square((highs - lows[:, None]) / levels) / 12 + clipped
    i, j = np.unravel_index(int(error.argmin()), error.shape)
    return float(lows[i]), float(highs[j])


def _beyond(ordered: Floats, end: float) -> float:
    """E[(x − end)₊²] of values in rising order."""
    return float(np.square(ordered[np.searchsorted(ordered, end) :] - end).sum() / len(ordered))

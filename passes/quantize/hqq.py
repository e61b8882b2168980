"""Half-quadratic quantization: levels, scale and zero point of groups of weights, robust to outliers, without data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["affine_groups", "hqq"]

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.generic]
Solved = tuple[Floats, Floats, Floats]

_NORM = 0.7  # p of the ‖·‖ₚ that outliers are measured in
_PENALTY, _GROWTH = 10.0, 1.01


def affine_groups(groups: Array, most: int) -> Solved:
    """q = clip(rint(w/s) + z, 0, most) with s and z from the range of each row, widened to hold 0."""
    rows = np.asarray(groups, np.float64)
    low, high = np.minimum(rows.min(1, initial=0.0), 0.0), np.maximum(rows.max(1, initial=0.0), 0.0)
    scale = np.asarray((high - low) / most, np.float32).astype(np.float64)  # as it will be stored
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, 1.0)
    zero = np.clip(np.rint(-low / scale), 0, most)
    return _levels(rows, scale, zero, most), scale, zero


def hqq(groups: Array, most: int, iterations: int = 20) -> Solved:
    """Levels 0…most, scale and integer zero point of each row, w ≈ s·(q − z), such that ‖w − s·(q − z)‖ₚ is small.

    The error is split into a sparse part e, shrunk by β, and the rest, for which z ← mean(q − (w − e)/s) and
    s ← Σ(q − z)(w − e) / Σ(q − z)². Each row stops, with its best, when mean|w − s(q − z)| grows.
    The paper's z is a real number; ONNX wants an integer, so that s has to move too. (Badri and Shaji 2023)
    """
    rows = np.asarray(groups, np.float64)
    levels, scale, zero = affine_groups(rows, most)
    best = _distance(rows, levels, scale, zero)
    beta = _PENALTY / np.maximum(np.abs(rows).max(1, initial=0.0), 1e-12)
    active = np.arange(len(rows))
    for _ in range(iterations):
        w, q, s, z = rows[active], levels[active], scale[active, None], zero[active, None]
        kept = w - _shrink(w - s * (q - z), beta[active, None])
        z = np.clip(np.rint((q - kept / s).mean(1, keepdims=True)), 0, most)
        steps = q - z
        square = np.maximum(np.square(steps).sum(1, keepdims=True), 1e-30)
        fitted = np.asarray((steps * kept).sum(1, keepdims=True) / square, np.float32).astype(np.float64)
        s = np.where(fitted >= np.finfo(np.float32).tiny, fitted, s)[:, 0]
        q, z = _levels(w, s, z[:, 0], most), z[:, 0]
        found = _distance(w, q, s, z)
        better = found < best[active]
        active = active[better]
        if not active.size:
            break
        levels[active], scale[active], zero[active], best[active] = q[better], s[better], z[better], found[better]
        beta[active] *= _GROWTH
    return levels, scale, zero


def _distance(rows: Floats, levels: Floats, scale: Floats, zero: Floats) -> Floats:
    return np.asarray(np.abs(rows - scale[:, None] * (levels - zero[:, None])).mean(1))


def _levels(rows: Floats, scale: Floats, zero: Floats, most: int) -> Floats:
    return np.clip(np.rint(rows / scale[:, None]) + zero[:, None], 0, most)


def _shrink(error: Floats, beta: Floats) -> Floats:
    """argmin over e of |e|ᵖ + β/2·(e − error)², to first order: sign(x)·max(|x| − |x|ᵖ⁻¹/β, 0)."""
    size = np.maximum(np.abs(error), 1e-12)
    return np.sign(error) * np.maximum(size - size ** (_NORM - 1) / beta, 0.0)

"""Rounding that makes up for itself: GPTQ in column order, then coordinate descent, on the second moments of inputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["descend", "gptq", "grids", "inverse_factor", "loss", "solve"]

Floats = npt.NDArray[np.float64]

_BLOCK = 128  # columns between two updates of everything behind them
_TRIED = 2048  # columns that GPTQ goes through for the choice of a row's grid
_SHARES = np.linspace(1.0, 0.4, 13)  # of max|w|: the scales tried; the first clips nothing


def inverse_factor(hessian: Floats) -> Floats:
    """Upper U with UᵀU = H⁻¹, for [..., n, n]."""
    inverse = np.linalg.inv(hessian)
    symmetric = (inverse + np.swapaxes(inverse, -1, -2)) / 2
    return np.asarray(np.swapaxes(np.linalg.cholesky(symmetric), -1, -2))


def loss(weight: Floats, rounded: Floats, hessian: Floats) -> Floats:
    """(w − q)ᵀ H (w − q) of each row: [groups, rows]."""
    error = weight - rounded
    return np.asarray(np.einsum("gri,gri->gr", error @ hessian, error))


def gptq(weight: Floats, factor: Floats, scale: Floats, low: Floats, high: Floats) -> Floats:
    """Levels: column by column w_j is rounded, and −(w_j − s·q_j)/U_jj·U_j,j+1: is added to what is not yet rounded.

    weight: [groups, rows, n]; factor: U of each group's H [groups, n, n]; scale, low, high: [groups, rows]. The same as
    optimal brain surgery in column order. (Frantar et al. 2023, algorithm 1)
    """
    w = weight.copy()
    levels = np.empty_like(w)
    columns = w.shape[2]
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        errors = np.empty((*w.shape[:2], end - start))
        for j in range(start, end):
            levels[:, :, j] = np.clip(np.rint(w[:, :, j] / scale), low, high)
            error = (w[:, :, j] - levels[:, :, j] * scale) / factor[:, j, j, None]
            errors[:, :, j - start] = error
            w[:, :, j + 1 : end] -= error[:, :, None] * factor[:, None, j, j + 1 : end]
        w[:, :, end:] -= errors @ factor[:, start:end, end:]
    return levels


def descend(
    weight: Floats, hessian: Floats, levels: Floats, scale: Floats, low: Floats, high: Floats, sweeps: int
) -> tuple[Floats, Floats]:
    """Coordinate descent on (w − s·q)ᵀ H (w − s·q): every level in turn to its best, then s = qᵀHw / qᵀHq.

    No step raises the loss. Returns levels and scales.
    """
    levels, scale = levels.copy(), scale.copy()
    for _ in range(sweeps):
        residual = (weight - scale[:, :, None] * levels) @ hessian
        moved = False
        for start in range(0, weight.shape[2], _BLOCK):
            part = slice(start, start + _BLOCK)
            before = levels[:, :, part].copy()
            _descend_block(levels[:, :, part], residual[:, :, part], hessian[:, part, part], scale, low, high)
            change = (levels[:, :, part] - before) * scale[:, :, None]
            if change.any():
                moved = True
                residual[:, :, start + _BLOCK :] -= change @ hessian[:, part, start + _BLOCK :]
        scale = _fitted(weight, hessian, levels, scale)
        if not moved:
            break
    return levels, scale


def _descend_block(levels: Floats, residual: Floats, hessian: Floats, scale: Floats, low: Floats, high: Floats) -> None:
    """One sweep over the columns of a block, in place; residual = H(w − s·q), kept up to date within the block."""
    diagonal = np.maximum(np.einsum("gii->gi", hessian), 1e-30)
    for j in range(levels.shape[2]):
        wanted = levels[:, :, j] + residual[:, :, j] / (diagonal[:, j, None] * scale)
        found = np.clip(np.rint(wanted), low, high)
        change = (found - levels[:, :, j]) * scale
        residual[:, :, j + 1 :] -= change[:, :, None] * hessian[:, None, j, j + 1 :]
        levels[:, :, j] = found


def _fitted(weight: Floats, hessian: Floats, levels: Floats, scale: Floats) -> Floats:
    """The scale of each row that is best for its levels; the old one where there is none."""
    product = levels @ hessian
    square = np.einsum("gri,gri->gr", product, levels)
    fitted = np.einsum("gri,gri->gr", product, weight) / np.maximum(square, 1e-30)
    return np.where((square > 1e-30) & (fitted > 0), fitted, scale)


def grids(weight: Floats, low: int, high: int, zero_points: bool) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Scale, lowest and highest level of each row: low … high, or as many levels around a zero point, clipped or not.

    weight: [groups, rows, n]. With zero points the levels are those that the row's own range asks for, 0 among them.
    """
    below, above = -np.minimum(weight.min(2, initial=0.0), 0.0), np.maximum(weight.max(2, initial=0.0), 0.0)
    largest = np.where((below > 0) | (above > 0), np.maximum(below, above), high)
    lows, highs = np.full(largest.shape, float(low)), np.full(largest.shape, float(high))
    for share in _SHARES:
        yield largest * share / high, lows, highs
    if not zero_points:
        return
    span = np.where(below + above > 0, below + above, high - low)
    lowest = -np.clip(np.rint(below / span * (high - low)), 0, high - low)
    for share in _SHARES:
        yield span * share / (high - low), lowest, lowest + high - low


def solve(
    weight: Floats, hessian: Floats, low: int, high: int, sweeps: int = 3, zero_points: bool = False
) -> tuple[Floats, Floats]:
    """Levels and scales of least (w − s·q)ᵀ H (w − s·q): GPTQ, then coordinate descent, on the grids that look best.

    weight: [groups, rows, n]; hessian: [groups, n, n], positive definite. What looks best to a row is the grid on which
    nearest rounding errs least under the diagonal of H; of short rows more grids are tried, which is what they need.
    """
    factor = inverse_factor(hessian)
    tried = max(_TRIED // weight.shape[2], 1)
    best = np.full(weight.shape[:2], np.inf)
    levels, scale = np.zeros_like(weight), np.ones(weight.shape[:2])
    for start, lowest, highest in _promising(weight, hessian, grids(weight, low, high, zero_points), tried):
        found = gptq(weight, factor, start, lowest, highest)
        found, fitted = descend(weight, hessian, found, start, lowest, highest, sweeps)
        error = loss(weight, found * fitted[:, :, None], hessian)
        better = error < best
        levels[better], scale[better], best[better] = found[better], fitted[better], error[better]
    return levels, scale


def _promising(
    weight: Floats, hessian: Floats, given: Iterator[tuple[Floats, Floats, Floats]], most: int
) -> Iterator[tuple[Floats, ...]]:
    """The first, second … best grid of every row, by the error of nearest rounding under the diagonal of H."""
    importance = np.einsum("gii->gi", hessian)[:, None]
    errors, parts = [], []
    for steps, lows, highs in given:
        nearest = np.clip(np.rint(weight / steps[:, :, None]), lows[:, :, None], highs[:, :, None])
        errors.append((np.square(weight - nearest * steps[:, :, None]) * importance).sum(2))
        parts.append(np.stack([steps, lows, highs]))
    order, stacked = np.argsort(np.stack(errors), axis=0, kind="stable"), np.stack(parts)
    for rank in order[:most]:
        yield tuple(np.take_along_axis(stacked, rank[None, None], axis=0)[0])

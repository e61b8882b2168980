"""Optimal Brain Surgeon on one layer: single weights, N:M patterns and blocks, the rest making up for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...ir.layers import Floats
from .reconstruct import gram_reconstruction
from .structured_obs import Problem, eliminate

__all__ = ["down_date", "exact_obs", "exact_obs_layer", "l_obs", "n_of_m", "obs_blocks"]


def down_date(inverse: Floats, p: int) -> Floats:
    """H⁻¹ without index p: H⁻¹ − H⁻¹_{:,p}·H⁻¹_{p,:}/[H⁻¹]_pp, whose row and column p are zero."""
    reduced = inverse - np.outer(inverse[:, p], inverse[p]) / inverse[p, p]
    reduced[p] = reduced[:, p] = 0.0
    return np.asarray(reduced)


def exact_obs(
    row: Floats, inverse: Floats, count: int, allowed: npt.NDArray[np.bool_] | None = None
) -> tuple[Floats, Floats]:
    """Remove `count` weights of one output one by one, argmin w_p²/[H⁻¹]_pp, and update the rest each time.

    inverse: of H = 2XXᵀ (or any multiple); allowed: weights that may go. Returns the row and each step's increase
    of the loss, w_p²/(2[H⁻¹]_pp) (ExactOBS, NeurIPS 2022).
    """
    w: Floats = row.astype(np.float64).copy()
    h: Floats = inverse.astype(np.float64).copy()
    candidates = np.ones(len(w), bool) if allowed is None else allowed.copy()
    losses = []
    for _ in range(count):
        diagonal = np.where(candidates, np.diag(h), 1.0)
        p = int(np.argmin(np.where(candidates, w**2 / diagonal, np.inf)))
        losses.append(w[p] ** 2 / (2 * h[p, p]))
        w -= h[:, p] * (w[p] / h[p, p])
        w[p] = 0.0
        h = down_date(h, p)
        candidates[p] = False
    return w, np.array(losses)


def l_obs(rows: Floats, inverse: Floats, count: int) -> Floats:
    """Layer-wise OBS: rank all weights once by w²/(2[H⁻¹]_qq), then remove `count` of them with the OBS update.

    rows: [outputs, n], one H for all of them (Dong, Chen, Pan, NIPS 2017).
    """
    result = rows.astype(np.float64).copy()
    scores = result**2 / (2 * np.diag(inverse))
    mask = np.zeros(result.size, bool)
    ranked = np.argsort(scores, axis=None, kind="stable")[:count]
    for flat in ranked:
        o, q = np.unravel_index(flat, result.shape)
        result[o] -= inverse[:, q] * (result[o, q] / inverse[q, q])
        mask[flat] = True
        result.ravel()[mask] = 0.0
    return result


def exact_obs_layer(rows: Floats, inverse: Floats, count: int) -> Floats:
    """ExactOBS over a layer: `count` weights go, from each output as many as its steps are cheap among all outputs'.

    rows: [outputs, n]. The losses of a row rise as it empties; the `count` lowest of all rows are taken.
    """
    losses = np.stack([np.maximum.accumulate(exact_obs(row, inverse, len(row))[1]) for row in rows])
    chosen = np.argsort(losses, axis=None, kind="stable")[:count]
    counts = np.bincount(chosen // rows.shape[1], minlength=len(rows))
    return np.stack([exact_obs(row, inverse, int(n))[0] for row, n in zip(rows, counts, strict=True)])


def n_of_m(row: Floats, inverse: Floats, n: int, m: int) -> Floats:
    """At most n non-zero weights in every m neighbours, chosen and made up for by ExactOBS.

    A tail shorter than m keeps at most n as well.
    """
    w: Floats = row.astype(np.float64).copy()
    h: Floats = inverse.astype(np.float64).copy()
    bucket = np.arange(len(w)) // m
    left = np.array([max(int((bucket == b).sum()) - n, 0) for b in range(int(bucket[-1]) + 1)])
    alive = np.ones(len(w), bool)
    while left.any():
        candidates = alive & (left[bucket] > 0)
        diagonal = np.where(candidates, np.diag(h), 1.0)
        p = int(np.argmin(np.where(candidates, w**2 / diagonal, np.inf)))
        w -= h[:, p] * (w[p] / h[p, p])
        w[p] = 0.0
        h = down_date(h, p)
        alive[p] = False
        left[bucket[p]] -= 1
    return w


def obs_blocks(rows: Floats, hessian: Floats, columns: npt.NDArray[np.int64], outputs: int, count: int) -> Floats:
    """`count` blocks of `outputs` neighbouring rows by one entry of `columns` go, those of the layer that cost least.

    rows: [rows, n], one H for all of them; columns: [blocks, m]. Rows that lose the same columns share [H⁻¹]: one
    structured elimination a band of rows, and of all steps the `count` cheapest. Every row keeps one block at least.
    """
    bands = [rows[start : start + outputs] for start in range(0, len(rows), outputs)]
    gone = [eliminate([Problem(band, hessian, columns)], ridge=0.0) for band in bands]
    steps = np.stack([np.maximum.accumulate(np.diff(e.errors, prepend=0.0)) for e in gone])
    chosen = np.argsort(steps, axis=None, kind="stable")[:count]
    counts = np.bincount(chosen // max(steps.shape[1], 1), minlength=len(bands))
    found = []
    for band, elimination, n in zip(bands, gone, counts, strict=True):
        kept = np.ones(rows.shape[1], bool)
        kept[columns[elimination.order[:n]].ravel()] = False
        made = np.zeros_like(band, np.float64)
        made[:, kept] = gram_reconstruction(band, hessian, kept)
        found.append(made)
    return np.concatenate(found)

"""How unevenly a compressed classifier's errors fall on classes and samples: CEV, SDE, flips and PIEs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["cev", "confusion", "error_changes", "flip_rate", "identified_exemplars", "sde"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def confusion(labels: Array, predictions: Array, classes: int) -> Labels:
    """Counts: rows are the true classes, columns the predicted ones."""
    flat = np.asarray(labels, np.int64) * classes + np.asarray(predictions, np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def error_changes(baseline: Array, compressed: Array) -> Floats:
    """[classes, 2]: change of the false-positive and false-negative rate of each class, in percent of the baseline's.

    A class for which the baseline makes no error of a kind has no percentage and is left out of the rows.
    """
    before, after = _rates(baseline), _rates(compressed)
    usable = (before > 0).all(1)
    changes: Floats = 100.0 * (after[usable] - before[usable]) / before[usable]
    return changes


def cev(changes: Array) -> float:
    """Combined error variance: `(1/2N) Σᵢ [(xᵢ−x̄)² + (yᵢ−ȳ)²]`, x and y in percent.

    Source: Blakeney et al., "Simon Says", arXiv 2106.07849; divided by 2N as in the authors' analysis, so that values
    compare with the published table.
    """
    points = np.asarray(changes, np.float64)
    return float(np.mean((points - points.mean(0)) ** 2)) if len(points) else 0.0


def sde(changes: Array) -> float:
    """Symmetric distance error: `(1/N) Σᵢ |xᵢ − yᵢ| / √2`, x and y in percent. Source: as `cev`."""
    points = np.asarray(changes, np.float64)
    return float(np.mean(np.abs(points[:, 0] - points[:, 1])) / np.sqrt(2.0)) if len(points) else 0.0


def flip_rate(before: Array, after: Array) -> float:
    """Share of samples whose predicted class changed."""
    return float(np.mean(np.asarray(before) != np.asarray(after)))


def identified_exemplars(dense: Array, compressed: Array) -> Labels:
    """PIEs: samples whose most frequent prediction differs between two populations of models, [models, samples] each.

    Source: Hooker et al., "What Do Compressed Deep Neural Networks Forget?", 2019. Ties go to the lower class.
    """
    return np.flatnonzero(_modal(dense) != _modal(compressed)).astype(np.int64)


def _modal(predictions: Array) -> Labels:
    votes = np.atleast_2d(np.asarray(predictions, np.int64))
    return np.array([np.bincount(column).argmax() for column in votes.T], np.int64)


def _rates(matrix: Array) -> Floats:
    """[classes, 2]: false positives of all samples of other classes, false negatives of all samples of the class."""
    counts = np.asarray(matrix, np.float64)
    right, actual, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    others = counts.sum() - actual
    positive = np.divide(predicted - right, others, out=np.zeros_like(right), where=others > 0)
    negative = np.divide(actual - right, actual, out=np.zeros_like(right), where=actual > 0)
    return np.stack([positive, negative], axis=1)

"""`cluster`: the best k values for a histogram of integers, by dynamic programming over contiguous runs of levels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["cluster"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def cluster(levels: Ints, weight: Floats, count: int) -> Ints:
    """For each level the value that stands for it, argmin Σ weight·(level − value)² with at most `count` values.

    levels: ascending and distinct. 0 stands for itself, so that zeros stay zeros. Values are rounded to integers.
    In one dimension optimal clusters are runs of neighbours, so the search over their ends is exact.
    """
    result = levels.copy()
    free = np.flatnonzero(levels != 0)
    left = count - (len(free) < len(levels))
    if len(free) <= left:
        return result
    ends = _runs(levels[free].astype(np.float64), weight[free], max(left, 1))
    for first, last in pairwise(ends):
        members = free[first:last]
        mass = weight[members]
        mean = float(mass @ levels[members]) / float(mass.sum()) if mass.any() else float(levels[members].mean())
        result[members] = int(np.rint(mean))
    return result


def _runs(x: Floats, weight: Floats, count: int) -> list[int]:
    """The boundaries 0 = e₀ < e₁ < … = n of the runs with the least weighted sum of squares."""
    n = len(x)
    mass, first, second = (np.concatenate([[0.0], np.cumsum(weight * x**p)]) for p in (0, 1, 2))
    i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    span = np.where(mass[j] > mass[i], mass[j] - mass[i], 1.0)
    cost = np.where(i < j, second[j] - second[i] - (first[j] - first[i]) ** 2 / span, np.inf)  # of the run i … j − 1
    best, cuts = cost[0], []
    for _ in range(count - 1):
        total = best[:, None] + cost
        cuts.append(total.argmin(0))
        best = total.min(0)
    ends = [n]
    for cut in reversed(cuts):
        ends.append(int(cut[ends[-1]]))
    return [0, *reversed(ends)]

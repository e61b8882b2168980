"""Structured Optimal Brain Surgeon: which unit costs the consumers least once the others make up for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...ir.layers import Floats

__all__ = ["Elimination", "Problem", "eliminate"]

Ints = npt.NDArray[np.int64]


@dataclass
class Problem:
    """One consumer: weight [outputs, n], input second moments [n, n], and the inputs of every unit [units, m].

    weighting: what a unit of squared output error is worth, relative to the other consumers of the group.
    """

    weight: Floats
    gram: Floats
    columns: Ints
    weighting: float = 1.0


@dataclass(frozen=True)
class Elimination:
    """Units in the order in which they go, and the summed weighted squared error after each of them."""

    order: Ints
    errors: Floats


def eliminate(problems: list[Problem], ridge: float, count: int | None = None) -> Elimination:
    """Remove units one by one, each time the one with the least Σ tr(W_S [H⁻¹]_SS⁻¹ W_Sᵀ), and update W and H⁻¹.

    H = G + λI; after unit S: W ← W − W_S [H⁻¹]_SS⁻¹ [H⁻¹]_S:, H⁻¹ ← H⁻¹ − [H⁻¹]_:S [H⁻¹]_SS⁻¹ [H⁻¹]_S:, which keep
    W the least-squares solution on what is left (block form of OBS; Kurtic, Frantar, Alistarh, "ZipLM", 2023).
    """
    left = np.arange(len(problems[0].columns))  # units whose columns the states still hold; `gone` marks those removed
    gone = np.zeros(len(left), bool)
    states = [_State(p, ridge) for p in problems]
    order, errors, total = [], [], 0.0
    for _ in range(min(len(left) - 1, count if count is not None else len(left))):
        cost = np.where(gone, np.inf, sum(state.costs() for state in states))
        at = int(np.argmin(cost))
        total += float(cost[at])
        order.append(int(left[at]))
        errors.append(total)
        gone[at] = True
        for state in states:
            state.remove(at)
        if gone.mean() > _COMPACT:
            for state in states:
                state.keep(~gone)
            left, gone = left[~gone], np.zeros(int((~gone).sum()), bool)
    return Elimination(np.array(order, np.int64), np.array(errors))


_COMPACT = 0.2  # share of removed units at which the matrices are cut to what is left, which is what makes this fast


class _State:
    """Weight and H⁻¹ of one problem as units go; rows and columns of removed units are zero and never read."""

    def __init__(self, problem: Problem, ridge: float) -> None:
        damping = ridge * max(float(np.trace(problem.gram)) / len(problem.gram), 1e-12)
        self._weight = problem.weight.astype(np.float64).copy()
        self._inverse = np.linalg.inv(problem.gram + damping * np.eye(len(problem.gram)))
        self._columns, self._weighting = problem.columns, problem.weighting

    def costs(self) -> Floats:
        """What removing each unit would cost now."""
        columns = self._columns
        if columns.shape[1] == 1:
            single = columns[:, 0]
            found = np.square(self._weight).sum(0)[single] / self._inverse[single, single]
            return np.asarray(self._weighting * found)
        blocks = self._inverse[columns[:, :, None], columns[:, None, :]]
        rows = self._weight[:, columns].transpose(1, 0, 2)  # [units, outputs, m]
        solved = np.linalg.solve(blocks, rows.transpose(0, 2, 1))
        return np.asarray(self._weighting * np.einsum("uom,umo->u", rows, solved))

    def remove(self, unit: int) -> None:
        s = self._columns[unit]
        gain = np.linalg.solve(self._inverse[np.ix_(s, s)], self._inverse[s])
        self._weight -= self._weight[:, s] @ gain
        self._inverse -= self._inverse[:, s] @ gain
        self._weight[:, s] = 0.0
        self._inverse[s] = self._inverse[:, s] = 0.0
        self._inverse[s, s] = 1.0  # keeps the block invertible

    def keep(self, units: npt.NDArray[np.bool_]) -> None:
        """Drop the columns of all other units; columns that belong to no unit stay."""
        dropped = np.zeros(len(self._inverse), bool)
        dropped[self._columns[~units].ravel()] = True
        stays = np.flatnonzero(~dropped)
        self._weight = self._weight[:, stays]
        self._inverse = self._inverse[np.ix_(stays, stays)]
        self._columns = np.searchsorted(stays, self._columns[units])

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
    units = len(problems[0].columns)
    weights = [p.weight.astype(np.float64).copy() for p in problems]
    inverses = []
    for p in problems:
        damping = ridge * max(float(np.trace(p.gram)) / len(p.gram), 1e-12)
        inverses.append(np.linalg.inv(p.gram + damping * np.eye(len(p.gram))))
    alive = np.ones(units, bool)
    order, errors, total = [], [], 0.0
    for _ in range(min(units - 1, count if count is not None else units)):
        cost = np.zeros(units)
        for p, weight, inverse in zip(problems, weights, inverses, strict=True):
            cost += p.weighting * _costs(weight, inverse, p.columns, alive)
        cost[~alive] = np.inf
        unit = int(np.argmin(cost))
        total += float(cost[unit])
        alive[unit] = False
        order.append(unit)
        errors.append(total)
        for p, weight, inverse in zip(problems, weights, inverses, strict=True):
            s = p.columns[unit]
            gain = np.linalg.solve(inverse[np.ix_(s, s)], inverse[s])
            weight -= weight[:, s] @ gain
            inverse -= inverse[:, s] @ gain
            weight[:, s] = 0.0
            inverse[s] = inverse[:, s] = 0.0
            inverse[s, s] = 1.0  # keeps the block invertible; it is never read again
    return Elimination(np.array(order, np.int64), np.array(errors))


def _costs(weight: Floats, inverse: Floats, columns: Ints, alive: npt.NDArray[np.bool_]) -> Floats:
    blocks = inverse[columns[:, :, None], columns[:, None, :]]
    rows = weight[:, columns].transpose(1, 0, 2)  # [units, outputs, m]
    solved = np.linalg.solve(blocks, rows.transpose(0, 2, 1))
    return np.where(alive, np.einsum("uom,umo->u", rows, solved), 0.0)

"""SQuant: rounding that balances the errors of each kernel and each output channel, from the weights alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["squant"]

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.generic]


def squant(weight: Array, scale: Array, low: int, high: int) -> Floats:
    """Levels q with |Σ_kernel e| ≤ 1 and |Σ_channel e| ≤ ½, e = q − w/s, each within one level of the nearest.

    weight: [M, N, …taps] in M output channels; scale: [M] or a number. Levels stay in low…high, and the sums are
    only brought down as far as levels at these ends leave room. (Guo et al. 2022, algorithm 1)
    """
    exact = np.asarray(weight, np.float64).reshape(*weight.shape[:2], -1)
    exact = exact / np.asarray(scale, np.float64).reshape(-1, 1, 1)
    levels = np.clip(np.rint(exact), low, high)
    _balance_kernels(levels, exact, low, high)
    _balance_channels(levels, exact, low, high)
    return levels.reshape(weight.shape)


def _balance_kernels(levels: Floats, exact: Floats, low: int, high: int) -> None:
    """Flip the round(|Σe|) elements of each kernel that were rounded furthest to the side of its sum."""
    error = levels - exact
    total = error.sum(2, keepdims=True)
    side = np.sign(total)
    rank = np.argsort(np.argsort(-_movable(error, levels, side, low, high), axis=2, kind="stable"), axis=2)
    flipped = (rank < np.rint(np.abs(total))) & (_movable(error, levels, side, low, high) > 0)
    levels -= side * flipped


def _balance_channels(levels: Floats, exact: Floats, low: int, high: int) -> None:
    """Flip one element in each of the round(|Σe|) kernels of a channel whose sums lie furthest to the side of its."""
    error = levels - exact
    kernels = error.sum(2)
    total = kernels.sum(1, keepdims=True)
    side = np.sign(total)
    room = _movable(error, levels, side[:, :, None], low, high)
    candidate = room.argmax(2)
    usable = (np.take_along_axis(room, candidate[:, :, None], 2)[:, :, 0] > 0) & (kernels * side > 0)
    rank = np.argsort(np.argsort(-np.where(usable, kernels * side, -np.inf), axis=1, kind="stable"), axis=1)
    chosen = (rank < np.rint(np.abs(total))) & usable
    row, kernel = np.nonzero(chosen)
    levels[row, kernel, candidate[row, kernel]] -= side[row, 0]


def _movable(error: Floats, levels: Floats, side: Floats, low: int, high: int) -> Floats:
    """Errors towards `side` of the elements that can go the other way; −∞ for those that cannot."""
    moved = levels - side
    return np.where((moved >= low) & (moved <= high), error * side, -np.inf)

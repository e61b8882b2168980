"""How much of every group to remove: the least total error that saves enough, by dynamic programming."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ...ir.layers import Floats

__all__ = ["allocate", "choose_levels", "fit_budget", "give_back"]

Ints = npt.NDArray[np.int64]


def choose_levels(units: int, alignment: int, smallest_share: float = 0.125) -> Ints:
    """How many units may be removed: 0, or such that a multiple of the alignment stays, never all."""
    floor = max(1, int(np.ceil(units * smallest_share)))
    kept = [k for k in range(units - 1, floor - 1, -1) if k % alignment == 0]
    return np.array([0, *(units - k for k in kept)], np.int64)


def allocate(
    errors: Sequence[Floats], savings: Sequence[Floats], wanted: float, buckets: int = 2000
) -> list[int] | None:
    """Index of the chosen level of every group: min Σ errors s.t. Σ savings ≥ wanted; None when it cannot be reached.

    errors, savings: one array per group, over its levels; level 0 saves nothing, and so does a level that costs more.
    Savings are rounded up to wanted/buckets, so a choice may fall short by that much per group: `fit_budget` measures
    and asks for more (a knapsack over discretised savings, as SPDY, ICML 2022, has it for time).
    """
    step = wanted / buckets
    best = np.full(buckets + 1, np.inf)
    best[0] = 0.0
    choices = []
    for error, saving in zip(errors, savings, strict=True):
        quantum = np.clip(np.ceil(saving / step - 1e-9).astype(int), 0, buckets)
        candidates = np.full((len(error), buckets + 1), np.inf)
        for level, (e, q) in enumerate(zip(error, quantum, strict=True)):
            candidates[level, q:] = best[: buckets + 1 - q] + e
            candidates[level, buckets] = best[max(buckets - q, 0) :].min() + e  # savings beyond the wish count as it
        choice = candidates.argmin(0)
        choices.append((choice, quantum, best))
        best = candidates.min(0)
    if not np.isfinite(best[buckets]):
        return None
    picked, at = [], buckets
    for choice, quantum, before in reversed(choices):
        level = int(choice[at])
        picked.append(level)
        if at == buckets:
            low = max(buckets - int(quantum[level]), 0)
            at = low + int(np.argmin(before[low:]))
        else:
            at -= int(quantum[level])
    return picked[::-1]


def fit_budget(
    choose: Callable[[float], list[int] | None], measure: Callable[[list[int]], float], wanted: float, rounds: int = 12
) -> list[int] | None:
    """The cheapest choice whose *measured* saving reaches `wanted`; savings of several groups do not simply add up.

    choose: saving asked for → levels; measure: levels → what they save together. Bisection on what is asked for.
    """
    low, high = wanted, wanted
    found = None
    for _ in range(6):
        levels = choose(high)
        if levels is None:
            break
        if measure(levels) >= wanted:
            found = levels
            break
        low, high = high, high * 1.25
    if found is None or high == wanted:
        return found
    for _ in range(rounds):
        middle = (low + high) / 2
        levels = choose(middle)
        if levels is not None and measure(levels) >= wanted:
            found, high = levels, middle
        else:
            low = middle
    return found


def give_back(
    chosen: Sequence[int], errors: Sequence[Floats], measure: Callable[[list[int]], float], wanted: float
) -> list[int]:
    """Lower levels, group by group, where the measured saving still reaches `wanted`: savings come in steps.

    The group with the largest error is asked first; its lowest level that is enough is found by bisection.
    """
    levels = list(chosen)
    for group in sorted(range(len(levels)), key=lambda g: -float(errors[g][levels[g]])):
        low, high = 0, levels[group]
        while low < high:
            middle = (low + high) // 2
            if measure([*levels[:group], middle, *levels[group + 1 :]]) >= wanted:
                high = middle
            else:
                low = middle + 1
        levels[group] = high
    return levels

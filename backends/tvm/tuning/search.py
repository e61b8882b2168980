"""Which configs of a space to measure next: all of a small one, else neighbours of the best and some at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

__all__ = ["EXHAUSTIVE", "proposals"]

EXHAUSTIVE = 64  # a space up to this size is measured whole
_SHARE_RANDOM = 0.25  # of each batch, so that a search does not stay in one valley


def proposals(
    space: Sequence[Any], known: Mapping[Any, float], count: int, rng: np.random.Generator, seeds: Sequence[Any] = ()
) -> list[Any]:
    """Up to `count` configs that are not known yet.

    known: config -> cost, infinite for one that failed. seeds: configs worth trying first, such as those that won for
    a similar workload. In a large space a config's neighbours differ from it in one field, as mutations do in an
    evolutionary search; those of the cheapest known ones come first.
    """
    fresh = [config for config in space if config not in known]
    first = [config for config in dict.fromkeys(seeds) if config in fresh][:count]
    rest = [config for config in fresh if config not in first]
    room = count - len(first)
    if len(space) <= EXHAUSTIVE:
        return first + rest[:room]
    best = sorted((config for config in known if known[config] < np.inf), key=lambda config: known[config])[:4]
    near = [config for parent in best for config in rest if _differences(config, parent) == 1]
    near = list(dict.fromkeys(near))[: room - int(room * _SHARE_RANDOM)]
    others = [config for config in rest if config not in near]
    picked = rng.permutation(len(others))[: room - len(near)]
    return first + near + [others[i] for i in picked]


def _differences(a: Any, b: Any) -> int:
    return sum(x != y for x, y in zip(astuple(a), astuple(b), strict=True))

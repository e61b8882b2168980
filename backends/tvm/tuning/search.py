"""Which configs of a space to measure next: all of a small one, else neighbours of the best and some at random.

A `Space` answers that: a `Listed` one from the list of its configs, the schedules of a kernel without a template
(`traces.py`) by making a few at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any, Protocol

import numpy as np

from .keys import plain

__all__ = ["EXHAUSTIVE", "Listed", "Space", "proposals"]

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


class Space(Protocol):
    """The configs of a workload; `size`: how many are measured at most."""

    @property
    def size(self) -> int: ...

    def config(self, fields: Mapping[str, Any]) -> Any:
        """The config that a record names; ValueError says why there is none."""
        ...

    def complete(self, known: Mapping[Any, float]) -> bool:
        """Whether there is nothing left to measure."""
        ...

    def proposals(
        self, known: Mapping[Any, float], count: int, rng: np.random.Generator, seeds: Sequence[Any] = ()
    ) -> list[Any]:
        """See the function."""
        ...


class Listed:
    """A space as the list of its configs."""

    def __init__(self, configs: Sequence[Any]) -> None:
        self.configs = configs

    @property
    def size(self) -> int:
        return len(self.configs)

    def config(self, fields: Mapping[str, Any]) -> Any:
        for config in self.configs:
            if plain(config) == fields:
                return config
        raise ValueError("the template has no such config any more")

    def complete(self, known: Mapping[Any, float]) -> bool:
        return all(config in known for config in self.configs)

    def proposals(
        self, known: Mapping[Any, float], count: int, rng: np.random.Generator, seeds: Sequence[Any] = ()
    ) -> list[Any]:
        return proposals(self.configs, known, count, rng, seeds)


def _differences(a: Any, b: Any) -> int:
    return sum(x != y for x, y in zip(astuple(a), astuple(b), strict=True))

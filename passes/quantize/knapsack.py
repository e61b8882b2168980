"""One choice for each layer so that the noise is least within a size: dynamic programming over bytes, exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Choice", "Front", "best_choices"]

Floats = npt.NDArray[np.float64]
Choice = tuple[int, float]  # bytes, noise

_STEPS = 4096  # sizes told apart: a step is 1/4096 of what the choices span


class Front:
    """Least noise for every size, and the choices that reach it; sizes are rounded up, so that none is exceeded."""

    def __init__(self, layers: Sequence[Sequence[Choice]]) -> None:
        self._layers = layers
        smallest = [min(size for size, _ in layer) for layer in layers]
        spare = sum(max(size for size, _ in layer) - least for layer, least in zip(layers, smallest, strict=True))
        self.base = sum(smallest)
        self.step = max(-(-spare // _STEPS), 1)
        rooms = zip(layers, smallest, strict=True)
        self._extra = [[-(-(size - least) // self.step) for size, _ in layer] for layer, least in rooms]
        width = sum(max(extra, default=0) for extra in self._extra) + 1
        self.noise: Floats = np.zeros(width)
        self._taken = np.zeros((len(layers), width), np.int8)
        for row, (layer, extra) in enumerate(zip(layers, self._extra, strict=True)):
            self._add(row, [noise for _, noise in layer], extra)

    def _add(self, row: int, noises: Sequence[float], extra: Sequence[int]) -> None:
        """least[b] ← min over choices c of least[b − extra_c] + noise_c."""
        best = np.full_like(self.noise, np.inf)
        for choice, (noise, more) in enumerate(zip(noises, extra, strict=True)):
            reached = np.full_like(best, np.inf)
            reached[more:] = self.noise[: len(best) - more] + noise
            better = reached < best
            best[better], self._taken[row, better] = reached[better], choice
        self.noise = best

    def choices(self, steps: int) -> list[int]:
        """The choice of every layer at `steps` steps above the smallest size."""
        found = []
        for row in reversed(range(len(self._layers))):
            choice = int(self._taken[row, steps])
            found.append(choice)
            steps -= self._extra[row][choice]
        return found[::-1]

    def size(self, choices: Sequence[int]) -> int:
        """Bytes of a choice for every layer."""
        return sum(layer[choice][0] for layer, choice in zip(self._layers, choices, strict=True))

    def points(self) -> list[int]:
        """The steps at which the noise falls: the Pareto front."""
        falls = np.flatnonzero(np.diff(self.noise) < 0) + 1
        return [0, *(int(step) for step in falls)]


def best_choices(layers: Sequence[Sequence[Choice]], most: float) -> list[int] | None:
    """The choice of every layer with the least noise in all, at most `most` bytes; None where nothing is that small."""
    front = Front(layers)
    if front.base > most:
        return None
    return front.choices(min(int((most - front.base) // front.step), len(front.noise) - 1))

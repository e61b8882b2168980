"""Two compiled forms of one model against each other on this machine: same bits, and which is faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from ..load import CompiledModel

__all__ = ["Comparison", "compare"]

Array = npt.NDArray[np.generic]

_ROUNDS = 25
_BLOCK_S = 0.02  # each form runs about so long in every round
_LIMIT_S = 20.0


@dataclass(frozen=True)
class Comparison:
    """Median seconds of a run of each form, and whether their outputs are equal to the bit."""

    first: float
    second: float
    equal: bool


def compare(first: Path, second: Path, name: str) -> Comparison:
    """Load both libraries, run them on the same made-up inputs in turn, and take medians over the rounds."""
    models = [CompiledModel(path, name) for path in (first, second)]
    feeds = _feeds(models[0])
    calls = [model.bind(**feeds) for model in models]
    outputs = [{key: array.copy() for key, array in call().items()} for call in calls]
    equal = all(a.tobytes() == outputs[1][key].tobytes() for key, a in outputs[0].items())
    count = max(1, int(_BLOCK_S / max(_seconds(calls[0], 3), 1e-6)))
    times: tuple[list[float], list[float]] = ([], [])
    started = time.perf_counter()
    for turn in range(_ROUNDS):
        for i in (0, 1) if turn % 2 else (1, 0):
            times[i].append(_seconds(calls[i], count))
        if time.perf_counter() - started > _LIMIT_S:
            break
    return Comparison(median(times[0]), median(times[1]), equal)


def _seconds(call: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def _feeds(model: CompiledModel) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for name, (shape, dtype) in model.inputs.items():
        made = rng.normal(0.0, 1.0, shape) if dtype.kind == "f" else np.zeros(shape)
        feeds[name] = made.astype(dtype)
    return feeds

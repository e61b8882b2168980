"""What the pack's own `evaluate.py` feeds a model: real inputs to judge predictions on, never inputs to a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["recorded"]

Array = npt.NDArray[np.generic]


class _Recorder:
    """An ONNX Runtime session that keeps the feeds it is given; `_Enough` ends the evaluation at `most` samples."""

    def __init__(self, session: Any, most: int) -> None:
        self._session, self._most = session, most
        self.feeds: list[dict[str, Array]] = []

    def run(self, fetch: Sequence[str] | None, feed: Mapping[str, Array]) -> Any:
        self.feeds.append({name: np.array(array) for name, array in feed.items()})
        if sum(len(next(iter(f.values()))) for f in self.feeds) >= self._most:
            raise _Enough
        return self._session.run(fetch, feed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class _Enough(Exception):
    """All samples that were asked for have been seen."""


def recorded(evaluate: ModuleType, path: Path, task: str, most: int, skip: int = 0) -> list[dict[str, Array]]:
    """At most `most` samples of the task's data behind the first `skip`, as feeds of one sample or one fixed batch.

    States of models that carry them are those the float model left.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    recorder = _Recorder(ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]), most + skip)
    free = not isinstance(recorder.get_inputs()[0].shape[0], int) and len(recorder.get_inputs()) == 1
    with suppress(_Enough):
        evaluate.TASKS[task](recorder, 0)
    feeds = recorder.feeds
    if free:
        feeds = [
            {n: a[i : i + 1] for n, a in feed.items()} for feed in feeds for i in range(len(next(iter(feed.values()))))
        ]
    kept = feeds[skip:] or feeds
    return [kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, min(most, len(kept))).round().astype(int))]


def _singles(feed: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """The samples of a feed one by one."""
    for i in range(len(next(iter(feed.values())))):
        yield {name: array[i : i + 1] for name, array in feed.items()}

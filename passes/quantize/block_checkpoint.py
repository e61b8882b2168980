"""What block reconstruction has finished, in a file: a run that was stopped goes on behind it. Needs PyTorch."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from ..context import Context, Feeds
from ..recover.checkpoint import Checkpoint, fingerprint
from .block_student import Student

__all__ = ["BlockCheckpoint", "found_in"]

_SAVE_EVERY = 60.0  # seconds between two saves
Tensors = Mapping[str, Any]


def found_in(student: Student, block: int, detail: str) -> dict[str, Any]:
    """What a trained block is to get: weights with scale and axis, biases, and ranges with their steps, by name."""
    weights = {}
    for name, rounding in student.roundings.items():
        scale = rounding.scale().detach().float()
        weights[name] = (rounding.levels().detach() * scale.reshape(rounding.shape), scale, rounding.axis)
    biases = {name: bias.detach().clone() for name, bias in student.biases.items()}
    steps = {name: (*step.range(), step.levels) for name, step in student.steps.items()}
    return {"block": block, "detail": detail, "weights": weights, "biases": biases, "steps": steps}


class BlockCheckpoint:
    """The start of a reconstruction, the blocks it has finished, and the values behind them, in `--checkpoints`.

    The file is that of the same model, options, inputs and seed; without a directory nothing is kept.
    """

    def __init__(self, context: Context, model: ir.Model, options: str, feeds: Sequence[Feeds]) -> None:
        self._saved = time.monotonic()
        self._state: dict[str, Any] | None = None
        self._file = Checkpoint(None, "")
        if context.checkpoints is not None:
            digest = hashlib.blake2b()
            for feed in feeds:
                for array in feed.values():
                    digest.update(np.ascontiguousarray(array).tobytes())
            name = fingerprint(model, options, context.seed, context.time_budget, digest.hexdigest())
            self._file = Checkpoint(context.checkpoints, f"reconstruct-{name}")
            self._state = self._file.load()

    def load(self) -> dict[str, Any] | None:
        """What `reach` was given; the random numbers go on where they were."""
        if self._state is not None:
            torch.set_rng_state(self._state["random"])
        return self._state

    def rounded(self) -> ir.Model | None:
        """The model with rounded weights that the blocks started from."""
        if self._state is None:
            return None
        contents: bytes = self._state["start"].numpy().tobytes()
        model: ir.Model = ir.from_proto(onnx.ModelProto.FromString(contents))
        return model

    def reach(self, block: int, start: ir.Model, found: Sequence[Any], exact: Tensors, now: Tensors) -> None:
        """All blocks before this one are finished: what to save; saved at once a minute after the last time."""
        if self._file.path is None:
            return
        if self._state is None:
            contents = np.frombuffer(ir.to_proto(start).SerializeToString(), np.uint8).copy()
            self._state = {"start": torch.from_numpy(contents)}
        values = {"exact": dict(exact), "now": dict(now), "random": torch.get_rng_state()}
        self._state |= {"next": block, "found": list(found), **values}
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self.save()

    def save(self) -> None:
        if self._state is not None:
            self._file.save(self._state)
            self._saved = time.monotonic()

    def remove(self) -> None:
        self._file.remove()

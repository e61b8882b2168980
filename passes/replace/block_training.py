"""Train one block, by itself, to give what the original layer gave, or to decide as it did."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

__all__ = ["Job", "Trained", "train"]

Array = npt.NDArray[np.generic]

_BATCH = 16  # feature maps or sequences a step
_VECTORS = 128  # vectors a step, of which a sample has one
_HELD_OUT = 8  # one sample of so many judges and is not trained on
_JUDGE_EVERY = 50  # steps
_PATIENCE = 6  # judgements without a gain of 0.1 % after which the training ends
_LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class Job:
    """A block as ONNX bytes from `x` to `y`, samples of both, and how long to train. Independent of any other job.

    decisions: y are scores, of which only the decisions count.
    """

    name: str
    model: bytes
    x: Array
    y: Array
    steps: int
    seed: int
    seconds: float | None = None
    decisions: bool = False

    @property
    def work(self) -> float:
        """What the job will take, in units that compare with other jobs: weights and samples seen."""
        return float(self.x[:1].size + self.y[:1].size) * self.steps

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        limit = -1 if self.seconds is None else self.seconds
        facts = np.array([self.steps, self.seed, limit, self.decisions], np.float64)
        np.savez(buffer, x=self.x, y=self.y, model=np.frombuffer(self.model, np.uint8), facts=facts, name=self.name)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Job:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            steps, seed, seconds, decisions = arrays["facts"].tolist()
            limit = None if seconds < 0 else seconds
            model, name = arrays["model"].tobytes(), str(arrays["name"])
            return cls(name, model, arrays["x"], arrays["y"], int(steps), int(seed), limit, bool(decisions))


@dataclass(frozen=True)
class Trained:
    """Weights by initialiser name; errors are shares of what the held-out samples tell (`train`), before and after."""

    weights: dict[str, Array]
    before: float
    after: float
    steps: int

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        named = {f"w_{name}": array for name, array in self.weights.items()}
        np.savez(buffer, facts=np.array([self.before, self.after, self.steps], np.float64), **named)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Trained:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            before, after, steps = arrays["facts"].tolist()
            weights = {name[2:]: arrays[name] for name in arrays.files if name.startswith("w_")}
            return cls(weights, before, after, int(steps))


def train(job: Job) -> Trained:
    """Adam from the block's own weights, cosine decay, the best weights on held-out samples; same bits on every run.

    Minimises `‖block(x) − y‖² / ‖y − ȳ‖²`, or, for decisions, `KL(softmax(y) ‖ softmax(block(x)))` beside that of
    their mean: what is missed of what the layer's output tells.
    """
    import torch

    from ...ir.fx import to_fx
    from ..recover.checkpoint import Checkpoint
    from ..recover.loop import Plan, fit
    from ..recover.losses import divergence

    torch.manual_seed(job.seed)
    torch.set_num_threads(1)
    model = ir.from_proto(onnx.load_from_string(job.model))
    bridge = to_fx(model)
    x, y = torch.from_numpy(np.ascontiguousarray(job.x)), torch.from_numpy(np.ascontiguousarray(job.y))
    learners, judges = (torch.from_numpy(rows) for rows in _split(len(x)))
    batch = min(_VECTORS if y.dim() == 2 else _BATCH, len(learners))
    if job.decisions:
        spread = divergence(y.softmax(1).mean(0, keepdim=True).log().expand_as(y), y, 1.0).clamp_min(1e-12)
    else:
        spread = (y - y.mean()).square().mean().clamp_min(1e-12)

    def error(rows: torch.Tensor) -> torch.Tensor:
        found = bridge.module(x[rows])[0]
        missed = divergence(found, y[rows], 1.0) if job.decisions else (found - y[rows]).square().mean()
        return missed / spread

    def judge() -> float:
        with torch.no_grad():
            return float(sum(float(error(rows)) * len(rows) for rows in judges.split(batch)) / len(judges))

    def batches() -> Iterator[torch.Tensor]:
        draw = torch.Generator().manual_seed(job.seed)
        while True:
            yield learners[torch.randint(len(learners), (batch,), generator=draw)]

    outcome = fit(
        bridge.module,
        [{"params": list(bridge.module.parameters()), "lr": _LEARNING_RATE}],
        batches(),
        lambda rows, _: error(rows),
        judge,
        Plan(job.steps, job.seconds, _JUDGE_EVERY, _PATIENCE),
        Checkpoint(None, job.name),
        lambda *_: None,
    )
    bridge.write_back()
    weights = {name: v.const_value.numpy() for name, v in model.graph.initializers.items() if v.const_value is not None}
    return Trained(weights, outcome.before, outcome.after, outcome.steps)


def _split(samples: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows to train on and rows that judge; a handful of samples does both."""
    rows = np.arange(samples)
    judges = rows % _HELD_OUT == _HELD_OUT - 1
    return (rows[~judges], rows[judges]) if judges.any() else (rows, rows)

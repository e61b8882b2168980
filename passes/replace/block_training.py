"""Train one block, by itself, to give what the original layer gave: `min ‖block(x) − y‖² / ‖y − ȳ‖²`."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

__all__ = ["Job", "Trained", "train"]

Array = npt.NDArray[np.generic]

_BATCH = 16
_HELD_OUT = 8  # one sample of so many judges and is not trained on
_JUDGE_EVERY = 50  # steps
_PATIENCE = 6  # judgements without a gain of 0.1 % after which the training ends
_LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class Job:
    """A block as ONNX bytes from `x` to `y`, samples of both, and how long to train. Independent of any other job."""

    name: str
    model: bytes
    x: Array
    y: Array
    steps: int
    seed: int
    seconds: float | None = None

    @property
    def work(self) -> float:
        """What the job will take, in units that compare with other jobs: weights and samples seen."""
        return float(self.x[:1].size + self.y[:1].size) * self.steps

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        facts = np.array([self.steps, self.seed, -1 if self.seconds is None else self.seconds], np.float64)
        np.savez(buffer, x=self.x, y=self.y, model=np.frombuffer(self.model, np.uint8), facts=facts, name=self.name)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Job:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            steps, seed, seconds = arrays["facts"].tolist()
            limit = None if seconds < 0 else seconds
            model, name = arrays["model"].tobytes(), str(arrays["name"])
            return cls(name, model, arrays["x"], arrays["y"], int(steps), int(seed), limit)


@dataclass(frozen=True)
class Trained:
    """Weights by initialiser name; errors are shares of the held-out output's variance, before and after."""

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
    """Adam from the block's own weights, cosine decay, the best weights on held-out samples; same bits on every run."""
    import torch

    from ...ir.fx import to_fx
    from ..recover.loop import deadline, decay

    torch.manual_seed(job.seed)
    torch.set_num_threads(1)
    model = ir.from_proto(onnx.load_from_string(job.model))
    bridge = to_fx(model)
    x, y = torch.from_numpy(np.ascontiguousarray(job.x)), torch.from_numpy(np.ascontiguousarray(job.y))
    judges = torch.arange(len(x)) % _HELD_OUT == _HELD_OUT - 1 if len(x) >= _HELD_OUT else torch.ones(len(x)).bool()
    learners = torch.nonzero(~judges if not judges.all() else judges).ravel()
    spread = (y - y.mean()).square().mean().clamp_min(1e-12)

    def error(rows: torch.Tensor) -> torch.Tensor:
        return (bridge.module(x[rows])[0] - y[rows]).square().mean() / spread

    def judge() -> float:
        with torch.no_grad():
            parts = torch.nonzero(judges).ravel().split(_BATCH)
            return float(sum(float(error(rows)) * len(rows) for rows in parts) / int(judges.sum()))

    optimizer = torch.optim.Adam(bridge.module.parameters(), lr=_LEARNING_RATE)
    draw = torch.Generator().manual_seed(job.seed)
    before = best = judge()
    kept = {path: tensor.clone() for path, tensor in bridge.module.state_dict().items()}
    step, stale, over = 0, 0, deadline(job.seconds)
    while step < job.steps and stale < _PATIENCE and not over():
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * decay(step / job.steps)
        rows = learners[torch.randint(len(learners), (min(_BATCH, len(learners)),), generator=draw)]
        optimizer.zero_grad()
        error(rows).backward()
        optimizer.step()
        step += 1
        if step % _JUDGE_EVERY == 0 or step == job.steps:
            found = judge()
            stale = 0 if found < best * 0.999 else stale + 1
            if found < best:
                best = found
                kept = {path: tensor.clone() for path, tensor in bridge.module.state_dict().items()}
    bridge.module.load_state_dict(kept)
    bridge.write_back()
    weights = {name: v.const_value.numpy() for name, v in model.graph.initializers.items() if v.const_value is not None}
    return Trained(weights, before, best, step)

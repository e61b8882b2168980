"""The training loop: Adam, cosine decay over steps or time, held-out judgement, checkpoints, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from .checkpoint import Checkpoint

__all__ = ["Outcome", "Plan", "deadline", "decay", "fit"]

_SAVE_EVERY = 60.0  # seconds between checkpoints
_GRADIENT_NORM = 5.0  # gradients are cut to this norm: a first step far from the optimum must not undo the start


@dataclass(frozen=True)
class Plan:
    """How long to train: at most `steps`, and at most `seconds` where given."""

    steps: int
    seconds: float | None = None


@dataclass
class Outcome:
    """Held-out loss before and after, and what the training took."""

    before: float
    after: float
    steps: int
    seconds: float
    resumed: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)


def fit(
    module: Any,
    groups: list[dict[str, Any]],
    batches: Iterator[Any],
    loss: Callable[[Any, int], Any],
    judge: Callable[[], float],
    plan: Plan,
    checkpoint: Checkpoint,
    progress: Callable[[float, float], None],
    after_step: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train the parameters in `groups` and leave the better of start and end in the module.

    loss: of a batch at a step; judge: held-out loss, without gradients. progress: share done, last loss.
    An interrupt leaves a checkpoint, from which the same call goes on: batches that were used are drawn and dropped.
    """
    optimizer = torch.optim.Adam(groups)
    rates = [group["lr"] for group in optimizer.param_groups]
    start = {path: tensor.detach().clone() for path, tensor in module.state_dict().items()}
    outcome = Outcome(judge(), math.inf, 0, 0.0)
    if state := checkpoint.load():
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        outcome.before, outcome.resumed, outcome.seconds = state["before"], state["step"], state["seconds"]
        outcome.steps = state["step"]
        for _ in range(outcome.resumed):
            next(batches)
    began = time.monotonic() - outcome.seconds
    saved = time.monotonic()

    def save() -> None:
        facts = {"step": outcome.steps, "before": outcome.before, "seconds": time.monotonic() - began}
        checkpoint.save({"module": module.state_dict(), "optimizer": optimizer.state_dict(), **facts})

    try:
        while (share := _share(outcome.steps, time.monotonic() - began, plan)) < 1.0:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * decay(share)
            value = loss(next(batches), outcome.steps)
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], _GRADIENT_NORM)
            optimizer.step()
            after_step()
            outcome.steps += 1
            if outcome.steps % 10 == 0:
                outcome.history.append((outcome.steps, float(value.detach())))
                progress(share, float(value.detach()))
            if time.monotonic() - saved > _SAVE_EVERY:
                save()
                saved = time.monotonic()
    except KeyboardInterrupt:
        save()
        raise
    outcome.seconds = time.monotonic() - began
    outcome.after = judge()
    if not outcome.after < outcome.before:
        module.load_state_dict(start)
    checkpoint.remove()
    return outcome


def decay(share: float) -> float:
    """Cosine from 1 to 0 over a training."""
    return (1.0 + math.cos(math.pi * min(share, 1.0))) / 2.0


def deadline(seconds: float | None) -> Callable[[], bool]:
    """A function that tells whether the time is over; never, without a limit."""
    end = math.inf if seconds is None else time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _share(step: int, seconds: float, plan: Plan) -> float:
    """How much of the plan is over: the larger of its steps' and its time's share."""
    spent = 0.0 if plan.seconds is None else seconds / plan.seconds
    return max(step / plan.steps, spent) if plan.steps else 1.0

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
_GAIN = 1e-3  # share of the held-out loss, less than which is none


@dataclass(frozen=True)
class Plan:
    """How long to train: at most `steps`, and at most `seconds` where given.

    judge_every: steps after which the held-out samples are asked again; 0 asks at the end alone. patience: judgements
    without a gain after which the training ends.
    """

    steps: int
    seconds: float | None = None
    judge_every: int = 0
    patience: int = 0


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
    """Train the parameters in `groups` and leave in the module the best of all that was judged, the start included.

    loss: of a batch at a step; judge: held-out loss, without gradients. progress: share done, last loss.
    An interrupt leaves a checkpoint, from which the same call goes on: batches that were used are drawn and dropped.
    """
    optimizer = torch.optim.Adam(groups)
    rates = [group["lr"] for group in optimizer.param_groups]
    best = _Best(module, judge())
    outcome = Outcome(best.loss, math.inf, 0, 0.0)
    if state := checkpoint.load():
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        outcome.before, outcome.resumed, outcome.seconds = state["before"], state["step"], state["seconds"]
        outcome.steps = state["step"]
        best.loss, best.stale, best.state = state.get("best", (best.loss, best.stale, best.state))
        for _ in range(outcome.resumed):
            next(batches)
    began = time.monotonic() - outcome.seconds
    saved = time.monotonic()

    def save() -> None:
        facts: dict[str, Any] = {"step": outcome.steps, "before": outcome.before, "seconds": time.monotonic() - began}
        if plan.judge_every:
            facts["best"] = best.loss, best.stale, best.state
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
            if plan.judge_every and outcome.steps % plan.judge_every == 0 and outcome.steps < plan.steps:
                best.see(module, judge())
                if best.stale >= plan.patience:
                    break
            if time.monotonic() - saved > _SAVE_EVERY:
                save()
                saved = time.monotonic()
    except KeyboardInterrupt:
        save()
        raise
    outcome.seconds = time.monotonic() - began
    outcome.after = judge()
    best.see(module, outcome.after)
    if plan.judge_every:
        outcome.after = best.loss
    module.load_state_dict(best.state)
    checkpoint.remove()
    return outcome


class _Best:
    """The state of a module with the lowest held-out loss so far, and how many judgements ago it gained on the last."""

    def __init__(self, module: Any, loss: float) -> None:
        self.loss, self.stale = loss, 0
        self.state = _copy(module)

    def see(self, module: Any, loss: float) -> None:
        self.stale = 0 if loss < self.loss * (1.0 - _GAIN) else self.stale + 1
        if loss < self.loss:
            self.loss, self.state = loss, _copy(module)


def _copy(module: Any) -> dict[str, Any]:
    return {path: tensor.detach().clone() for path, tensor in module.state_dict().items()}


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

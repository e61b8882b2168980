"""Train the rounding of one block's weights, their scales and its activations' steps. Needs PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..recover.precision import mixed
from .learned_rounding import LearnedRounding, LearnedStep

__all__ = ["Schedule", "StudentBlock", "run", "tensors_of", "train"]

Tensor = Any

_WARM_UP = 0.2  # share of the steps before roundings are pressed to 0 or 1
_SHARPNESS = (20.0, 2.0)  # β of the pressure, from first to last
_PRESSURE = 0.01
_TRAVEL = 8.0
_POSITIONS = 65536  # of feature maps in one step: what more of them say is little, and takes the time of more steps


@dataclass(frozen=True)
class Schedule:
    """steps of Adam on `batch` samples each; rates of the scales, the biases and the activation steps.

    mixing: share of a block's input elements that come from the float model (QDrop).
    """

    steps: int
    batch: int
    scale: float = 1e-3
    bias: float = 1e-3
    step: float = 2e-3
    mixing: float = 0.5

    @property
    def rounding(self) -> float:
        """The rate of V: from one end of the sigmoid to the other in half of the steps."""
        return _TRAVEL / self.steps


@dataclass
class StudentBlock:
    """A block's module, what replaces its weights (by path), its trained biases, and its activations' quantizers."""

    module: Any
    weights: Mapping[str, LearnedRounding]
    biases: Mapping[str, Tensor]
    steps: Sequence[LearnedStep]

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        held = {path: rounding() for path, rounding in self.weights.items()}
        result: tuple[Tensor, ...] = torch.func.functional_call(self.module, {**held, **self.biases}, tuple(inputs))
        return result

    def trained(self) -> list[Tensor]:
        """Every tensor that training moves."""
        roundings = [tensor for r in self.weights.values() for tensor in (r.v, r.log_scale)]
        return [*roundings, *self.biases.values(), *(s.log_step for s in self.steps)]

    def drop(self, on: bool) -> None:
        for step in self.steps:
            step.dropping = on

    def harden(self) -> None:
        for rounding in self.weights.values():
            rounding.hard = True


def train(
    block: StudentBlock,
    inputs: Sequence[Tensor],
    inputs_now: Sequence[Tensor],
    targets: Sequence[Tensor],
    schedule: Schedule,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[float, float]:
    """Fit the block on `inputs_now` (of the quantized model) to `targets`; relative squared errors before and after.

    Training that does not help is undone.

    stop: asked after every step whether to end early.
    """
    optimizer = torch.optim.Adam(_groups(block, schedule))
    powers = [target.var().clamp_min(1e-12) for target in targets]
    before = error(block, inputs_now, targets, schedule.batch)
    start = [tensor.detach().clone() for tensor in block.trained()]
    samples = len(targets[0])
    block.drop(True)
    size = _batch((*inputs, *targets), schedule.batch)
    for step in range(schedule.steps):
        chosen = torch.randint(samples, (size,))
        drawn = [_mixed(a[chosen], b[chosen], schedule.mixing) for a, b in zip(inputs, inputs_now, strict=True)]
        with mixed(targets[0].device):
            results = block(drawn)
        loss = sum(
            (result.float() - target[chosen]).square().mean() / power * target.shape[1]
            for result, target, power in zip(results, targets, powers, strict=True)
        )
        progress = step / schedule.steps
        if progress > _WARM_UP:
            first, last = _SHARPNESS
            beta = last + (first - last) * (1 - (progress - _WARM_UP) / (1 - _WARM_UP))
            loss = loss + _PRESSURE * sum(rounding.undecided(beta) for rounding in block.weights.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if stop():
            break
    block.drop(False)
    block.harden()
    after = error(block, inputs_now, targets, schedule.batch)
    if after < before:
        return before, after
    with torch.no_grad():
        for tensor, value in zip(block.trained(), start, strict=True):
            tensor.copy_(value)
    return before, before


def _groups(block: StudentBlock, schedule: Schedule) -> list[dict[str, Any]]:
    roundings = list(block.weights.values())
    groups = [
        {"params": [r.v for r in roundings], "lr": schedule.rounding},
        {"params": [r.log_scale for r in roundings], "lr": schedule.scale},
        {"params": list(block.biases.values()), "lr": schedule.bias},
        {"params": [s.log_step for s in block.steps], "lr": schedule.step},
    ]
    return [group for group in groups if group["params"]]


def _batch(values: Sequence[Tensor], most: int) -> int:
    """Samples of one step: at most `most`, fewer where feature maps are so large that they say as much."""
    positions = max(value[0].numel() // value.shape[1] if value.dim() > 2 else 1 for value in values)
    return max(min(most, len(values[0]), _POSITIONS // positions), 1)


def _mixed(exact: Tensor, now: Tensor, share: float) -> Tensor:
    if not exact.is_floating_point() or exact is now or share <= 0:
        return now
    return torch.where(torch.rand_like(exact) < share, exact, now)


@torch.no_grad()  # type: ignore[untyped-decorator]
def error(block: StudentBlock, inputs: Sequence[Tensor], targets: Sequence[Tensor], batch: int) -> float:
    """Σ‖f(x̂) − y‖² / Σ‖y − mean y‖² with weights as they would be stored."""
    hard = [rounding.hard for rounding in block.weights.values()]
    block.harden()
    results = run(block, inputs, batch)
    for rounding, state in zip(block.weights.values(), hard, strict=True):
        rounding.hard = state
    wrong = sum(float((r - t).square().sum()) for r, t in zip(results, targets, strict=True))
    power = sum(float((t - t.mean()).square().sum()) for t in targets)
    return wrong / max(power, 1e-30)


@torch.no_grad()  # type: ignore[untyped-decorator]
def run(module: Callable[[Sequence[Tensor]], Sequence[Tensor]], inputs: Sequence[Tensor], batch: int) -> list[Tensor]:
    """The outputs on all samples, `batch` at a time."""
    parts = [module([x[i : i + batch] for x in inputs]) for i in range(0, len(inputs[0]), batch)]
    return [torch.cat([part[k] for part in parts]) for k in range(len(parts[0]))]


def tensors_of(feeds: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """All feeds as one batch, input by input, pictures in the layout that convolutions are fastest in."""
    found = {name: torch.cat([torch.as_tensor(np.asarray(feed[name])) for feed in feeds]) for name in feeds[0]}
    return {n: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for n, x in found.items()}

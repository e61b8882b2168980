"""Inputs by gradients: what leaves the moments of training, and clear decisions, in a network. Needs PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["Generator", "Statistics", "distance", "distill", "swing"]

Tensor = Any

_LATENT = 256
_WIDTH = 64  # channels inside the generator
_DECAY, _EVERY = 0.95, 100  # of the rates: factor and steps
_RATES = (0.1, 0.01)  # of the latents and of the generator's weights


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation per channel (axis 1) that training left on one value."""

    mean: Tensor
    std: Tensor


def distance(value: Tensor, known: Statistics) -> Tensor:
    """mean over channels of ((μ̂ − μ)/σ)² + (σ̂/σ − 1)², without channels that are dead in training."""
    axes = [0, *range(2, value.dim())]
    live = known.std > 1e-6 * known.std.max()
    mean, std = value.mean(axes)[live], value.std(axes, correction=0)[live]
    sigma = known.std[live]
    return (((mean - known.mean[live]) / sigma).square() + (std / sigma - 1).square()).mean()


def swing(x: Tensor, stride: Sequence[int]) -> Tensor:
    """x shifted at random by less than the stride, its border mirrored, so that no phase of the stride is special."""
    reach = [step - 1 for step in stride]
    padded = F.pad(x, [amount for step in reversed(reach) for amount in (step, step)], mode="reflect")
    for axis, step in enumerate(reach):
        start = int(torch.randint(2 * step + 1, ()))
        padded = padded.narrow(2 + axis, start, x.shape[2 + axis])
    return padded


class Generator(torch.nn.Module):  # type: ignore[misc]
    """Latents to pictures: linear, two upsampling convolutions, tanh, each channel to a given mean and deviation."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        channels, height, width = like.shape[1:]
        self.corner = (_WIDTH, -(-height // 4), -(-width // 4))
        self.size = (height, width)
        self.register_buffer("mean", like.mean((0, 2, 3), keepdim=True))
        self.register_buffer("std", like.std((0, 2, 3), keepdim=True))
        self.first = torch.nn.Linear(_LATENT, self.corner[0] * self.corner[1] * self.corner[2])
        stages: list[torch.nn.Module] = [torch.nn.BatchNorm2d(_WIDTH)]
        for out in (_WIDTH, _WIDTH // 2):
            stages += [torch.nn.Upsample(scale_factor=2), torch.nn.LazyConv2d(out, 3, padding=1)]
            stages += [torch.nn.BatchNorm2d(out), torch.nn.LeakyReLU(0.2)]
        stages += [torch.nn.LazyConv2d(channels, 3, padding=1), torch.nn.Tanh()]
        self.stages = torch.nn.Sequential(*stages, torch.nn.BatchNorm2d(channels, affine=False))

    def forward(self, latent: Tensor) -> Tensor:
        x = self.stages(self.first(latent).reshape(-1, *self.corner))
        return x[:, :, : self.size[0], : self.size[1]] * self.std + self.mean


def distill(
    loss: Callable[[Tensor], Tensor],
    start: Tensor,
    steps: int,
    rate: float,
    generator: bool,
    progress: Callable[[float], None] = lambda _share: None,
) -> Tensor:
    """Inputs of low loss: `start` moved by Adam at `rate` standard deviations a step, or what a generator makes.

    The inputs never leave the range that they start in.
    """
    low, high = start.min(), start.max()
    if generator:
        maker, latent = Generator(start), torch.randn(len(start), _LATENT, requires_grad=True)
        maker(latent)  # its lazy layers take their sizes
        groups = [{"params": [latent], "lr": _RATES[0]}, {"params": list(maker.parameters()), "lr": _RATES[1]}]
    else:
        moved = start.clone().requires_grad_()
        groups = [{"params": [moved], "lr": rate * float(start.std())}]
    make: Callable[[], Tensor] = (lambda: maker(latent)) if generator else (lambda: moved)
    optimizer = torch.optim.Adam(groups)
    decay = torch.optim.lr_scheduler.StepLR(optimizer, _EVERY, _DECAY)
    for step in range(steps):
        optimizer.zero_grad()
        loss(make().clamp(low, high)).backward()
        optimizer.step()
        decay.step()
        progress((step + 1) / steps)
    return make().detach().clamp(low, high)

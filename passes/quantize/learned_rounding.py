"""Quantizers with gradients: rounding and scale of weights, step size of activations. Needs PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..recover.fake_quantize import fake_quantize

__all__ = ["LearnedRounding", "LearnedStep"]

Tensor = Any
Floats = npt.NDArray[np.float64]

_LOW, _HIGH = -0.1, 1.1  # the sigmoid is stretched, so that 0 and 1 are reached and then have no gradient
_FITTED_ON = 65536  # elements
_UNDECIDED = 0.05  # closest that a start may be to a level: a sigmoid at its end would not move


class LearnedRounding(torch.nn.Module):  # type: ignore[misc]
    """s·clip(B + h(V), low, high) with B = ⌊start⌋ and h(V) = clip(1.2·σ(V) − 0.1, 0, 1) (AdaRound; s too: GENIE-M).

    start: in levels, of the weight's shape; scale, low, high: one number per slice of `axis`. `hard` makes h 0 or 1.
    """

    def __init__(self, start: Floats, scale: Floats, low: Floats, high: Floats, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.shape = tuple(-1 if i == axis else 1 for i in range(start.ndim))
        low_, high_ = low.reshape(self.shape), high.reshape(self.shape)
        base = np.clip(np.floor(start), low_, np.maximum(high_ - 1, low_))
        rest = np.clip(start - base, _UNDECIDED, 1 - _UNDECIDED)
        logit = -np.log((_HIGH - _LOW) / (rest - _LOW) - 1)
        self.v = torch.nn.Parameter(torch.tensor(logit, dtype=torch.float32))
        self.log_scale = torch.nn.Parameter(torch.tensor(np.log(scale), dtype=torch.float32))
        for name, array in (("base", base), ("low", low_), ("high", high_)):
            self.register_buffer(name, torch.tensor(array, dtype=torch.float32))
        self.hard = False

    def rounding(self) -> Tensor:
        """h(V), or its final 0 and 1."""
        h = torch.clamp(torch.sigmoid(self.v) * (_HIGH - _LOW) + _LOW, 0, 1)
        return (h >= 0.5).float() if self.hard else h

    def levels(self) -> Tensor:
        return torch.minimum(torch.maximum(self.base + self.rounding(), self.low), self.high)

    def scale(self) -> Tensor:
        return torch.exp(self.log_scale)

    def forward(self) -> Tensor:
        return self.levels() * self.scale().reshape(self.shape)

    def undecided(self, beta: float) -> Tensor:
        """Σ 1 − |2h − 1|^β: 0 when every h is 0 or 1."""
        return (1 - (2 * self.rounding() - 1).abs().pow(beta)).sum()


class LearnedStep(torch.nn.Module):  # type: ignore[misc]
    """s·(clip(round(x/s) + z, 0, levels) − z): a value of few bits, with the gradient of LSQ for s.

    The first values it sees set s and z, at least squared error. keep: share of the elements that stay as they are
    while `dropping` (QDrop).
    """

    def __init__(self, levels: int, keep: float = 0.5) -> None:
        super().__init__()
        self.log_step = torch.nn.Parameter(torch.zeros(()))
        self.levels, self.keep = levels, keep
        self.zero = 0.0
        self.fitted = self.dropping = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.fitted:
            self._fit(x.detach())
        rounded = self._rounded(x, torch.exp(self.log_step))
        return torch.where(torch.rand_like(x) < self.keep, x, rounded) if self.dropping else rounded

    def _rounded(self, x: Tensor, step: Tensor) -> Tensor:
        return fake_quantize(x, step, (-self.zero, self.levels - self.zero))

    def range(self) -> tuple[float, float]:
        """Lowest and highest value it lets through."""
        step = float(torch.exp(self.log_step.detach()))
        return -self.zero * step, (self.levels - self.zero) * step

    def _fit(self, x: Tensor) -> None:
        """Zero point by the range of x, then the step of least squared error among shares of what the range spans."""
        sample = x.reshape(-1)
        sample = sample[:: max(sample.numel() // _FITTED_ON, 1)]
        low, high = min(float(sample.min()), 0.0), max(float(sample.max()), 0.0)
        widest = max((high - low) / self.levels, 1e-12)
        self.zero = float(np.clip(np.rint(-low / widest), 0, self.levels))
        steps = [widest * share for share in np.linspace(1.0, 0.1, 46)]
        errors = [float((self._rounded(sample, torch.tensor(step)) - sample).square().mean()) for step in steps]
        with torch.no_grad():
            self.log_step.fill_(float(np.log(steps[int(np.argmin(errors))])))
        self.fitted = True

"""Rounding to levels with gradients: one function of torch for a pair Q → DQ, and the rules of its backward pass."""

from __future__ import annotations

from typing import Any, Literal

import torch

__all__ = ["Rule", "fake_quantize"]

Tensor = Any
Rule = Literal["lsq", "pact", "fixed"]


class _FakeQuantize(torch.autograd.Function):  # type: ignore[misc]
    """`(clip(rint(x/s) + z, low, high) − z)·s`.

    To x the gradient passes inside the range, scaled by `1 + δ·sign(g)·(x/s − rint(x/s))` (EWGS; δ = 0 is the
    straight-through estimator). To s: `lsq` sums `g·(q − z − x/s)` inside and `g·(q − z)` outside; `pact` the latter
    alone, as of a learned clip; `fixed` nothing.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, levels: tuple[int, int], delta: float, rule: Rule
    ) -> Any:
        ratio = x / scale
        rounded = torch.round(ratio)
        q = torch.clamp(rounded + zero, *levels) - zero
        ctx.save_for_backward(ratio, q, scale)
        ctx.delta, ctx.rule = delta, rule
        return q * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ratio, q, scale = ctx.saved_tensors
        error = q - ratio
        inside = error.abs() <= 0.5
        to_x = gradient * inside
        if ctx.delta:
            to_x = to_x * (1.0 - ctx.delta * torch.sign(gradient) * error)
        to_scale = None
        if ctx.rule != "fixed" and ctx.needs_input_grad[1]:
            change = torch.where(inside, error if ctx.rule == "lsq" else torch.zeros_like(error), q)
            to_scale = (gradient * change).sum_to_size(scale.shape)
        return to_x, to_scale, None, None, None, None


def fake_quantize(
    x: Tensor, scale: Tensor, zero: Tensor, *, levels: tuple[int, int], delta: float = 0.0, rule: Rule = "lsq"
) -> Tensor:
    """A value as its levels hold it, `scale` and `zero` broadcasting against `x`; float32 whatever autocast says.

    Sources: LSQ (Esser et al., ICLR 2020), PACT (Choi et al. 2018), EWGS (Lee et al., CVPR 2021).
    """
    return _FakeQuantize.apply(x.float(), scale.float(), zero.float(), levels, delta, rule)

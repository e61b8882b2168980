"""Rounding to levels with gradients: one function of torch for a pair Q → DQ, and the rules of its backward pass."""

from __future__ import annotations

from typing import Any, Literal

import torch

__all__ = ["Rule", "fake_quantize"]

Tensor = Any
Rule = Literal["lsq", "pact", "fixed"]

_EXACT_IN_BFLOAT16 = 256  # integers up to here are bfloat16 numbers; more levels than that are counted in float32


class _FakeQuantize(torch.autograd.Function):  # type: ignore[misc]
    """`clip(rint(x/s), low, high)·s`, with levels counted from the zero point.

    To x the gradient passes inside the range, scaled by `1 + δ·sign(g)·(x/s − rint(x/s))` (EWGS; δ = 0 is the
    straight-through estimator). To s: `lsq` sums `g·(q − x/s)` inside and `g·q` outside; `pact` the latter alone, as
    of a learned clip; `fixed` nothing. Both are divided by √(elements · levels), as LSQ does, which makes them as
    large as the weights' gradients.

    Every element is read and written as few times as torch allows: this is most of the time of a training step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float, delta: float, rule: Rule) -> Any:
        ratio = x * scale.reciprocal()
        q = torch.clamp(ratio, low, high).round_()
        ctx.save_for_backward(ratio, q, scale)
        ctx.bounds, ctx.delta, ctx.rule = (low, high), delta, rule
        return q * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ratio, q, scale = ctx.saved_tensors
        low, high = ctx.bounds
        inside = torch.ops.aten.hardtanh_backward(gradient, ratio, low - 0.5, high + 0.5)
        to_scale = None
        if ctx.rule != "fixed" and ctx.needs_input_grad[1]:
            # Σ g·q outside and Σ g·(q − x/s) inside are Σ g·q − Σ g_in·(x/s); outside alone, Σ g·q − Σ g_in·q
            passed = _along(gradient, q, scale) - _along(inside, ratio if ctx.rule == "lsq" else q, scale)
            count = q.numel() // scale.numel() * max(high, -low, 1.0)
            to_scale = passed * float(count) ** -0.5
        if ctx.delta:
            inside = inside.addcmul(inside.abs(), q - ratio, value=-ctx.delta)
        return inside, to_scale, None, None, None, None


def _along(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Σ a·b over the elements that share a step, in float32."""
    return (a * b).sum_to_size(scale.shape).float() if scale.dim() else (a * b).sum(dtype=torch.float32)


def fake_quantize(
    x: Tensor, scale: Tensor, zero: int, *, levels: tuple[int, int], delta: float = 0.0, rule: Rule = "lsq"
) -> Tensor:
    """A value as its levels hold it, in the precision that it comes in; `scale` broadcasts against `x`.

    Sources: LSQ (Esser et al., ICLR 2020), PACT (Choi et al. 2018), EWGS (Lee et al., CVPR 2021).
    """
    low, high = levels[0] - zero, levels[1] - zero
    if max(-low, high) > _EXACT_IN_BFLOAT16:
        x = x.float()
    scale = scale.reshape(()) if scale.numel() == 1 else scale
    return _FakeQuantize.apply(x, scale, float(low), float(high), delta, rule)

"""Rounding to levels with gradients: one function of torch for a pair Q → DQ, and the rules of its backward pass."""

from __future__ import annotations

from typing import Any, Literal

import torch

__all__ = ["Rule", "fake_quantize"]

Tensor = Any
Bound = Any  # a number, or a tensor that broadcasts
Rule = Literal["lsq", "pact", "fixed"]

_EXACT_IN_BFLOAT16 = 256  # integers up to here are bfloat16 numbers; more levels than that are counted in float32


class _FakeQuantize(torch.autograd.Function):  # type: ignore[misc]
    """`clip(rint(x/s), low, high)·s`, with levels counted from the zero point.

    To x the gradient passes inside the range, scaled by `1 + δ·sign(g)·(x/s − rint(x/s))` (EWGS; δ = 0 is the
    straight-through estimator). To s: `lsq` sums `g·(q − x/s)` inside and `g·q` outside; `pact` the latter alone, as
    of a learned clip; `fixed` nothing. Both are divided by √(elements · levels), as in LSQ, so that they are about as
    large as the weights' gradients.

    Every element is read and written as few times as torch allows: this was most of the time of a training step.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, low: Bound, high: Bound, relu: bool, delta: float, rule: Rule
    ) -> Any:
        ratio = x / scale if x.dtype == torch.float32 else x * scale.reciprocal()
        q = torch.clamp(ratio, low, high).round_()
        ctx.save_for_backward(ratio, q, scale)
        ctx.bounds, ctx.relu, ctx.delta, ctx.rule = (low, high), relu, delta, rule
        return q * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ratio, q, scale = ctx.saved_tensors
        low, high = ctx.bounds
        inside = _between(gradient, ratio, 0.0 if ctx.relu else low - 0.5, high + 0.5)
        to_scale = None
        if ctx.rule != "fixed" and ctx.needs_input_grad[1]:
            # g·q outside and g·(q − x/s) inside is g·q − g_in·(x/s); g·q outside alone is g·q − g_in·q
            passed = (gradient * q).addcmul_(inside, ratio if ctx.rule == "lsq" else q, value=-1.0)
            most = max(float(torch.as_tensor(bound).abs().max()) for bound in ctx.bounds)
            to_scale = passed.sum_to_size(scale.shape) * (q.numel() / scale.numel() * max(most, 1.0)) ** -0.5
        if ctx.delta:
            inside = inside.addcmul(inside.abs(), q - ratio, value=-ctx.delta)
        return inside, to_scale, None, None, None, None, None


def _between(gradient: Tensor, ratio: Tensor, low: Bound, high: Bound) -> Tensor:
    """The gradient where rounding, not clipping, made the level."""
    if isinstance(low, torch.Tensor):
        return gradient * ((ratio > low) & (ratio < high))
    return torch.ops.aten.hardtanh_backward(gradient, ratio, low, high)


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    levels: tuple[Bound, Bound],
    *,
    relu: bool = False,
    delta: float = 0.0,
    rule: Rule = "lsq",
) -> Tensor:
    """A value as its levels hold it, in the precision that it comes in; `scale` broadcasts against `x`.

    levels: lowest and highest, counted from the zero point: numbers, or tensors that broadcast.
    relu: the lowest level is 0 and stands for Relu: no gradient passes below 0, though ½ a level below rounds to it.
    Sources: LSQ (Esser et al., ICLR 2020), PACT (Choi et al. 2018), EWGS (Lee et al., CVPR 2021).
    """
    low, high = levels
    if x.dtype != torch.float32 and max(float(torch.as_tensor(b).abs().max()) for b in levels) > _EXACT_IN_BFLOAT16:
        x = x.float()
    scale = scale.reshape(()) if scale.numel() == 1 else scale
    return _FakeQuantize.apply(x, scale, low, high, relu, delta, rule)

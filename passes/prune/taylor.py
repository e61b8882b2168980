"""First-order Taylor saliency without labels: how far the outputs move when a channel is set to zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import UsageError
from ...ir.layers import Floats

__all__ = ["taylor"]

_DIRECTIONS = 4  # random directions of the outputs per batch; scores are also averaged over the batches


def taylor(
    model: ir.Model,
    values: Mapping[str, int],
    feeds: Sequence[Mapping[str, npt.NDArray[np.generic]]],
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """E[(Σ a·∂(ε·y)/∂a)²] per channel of every value, ε random signs: ‖J·a‖², first order in what zeroing does to y.

    values: name to channel axis. Molchanov et al. 2019 have the gradient of a labelled loss in place of ε·y; without
    labels every direction of the outputs counts alike, each output in units of its own deviation.
    """
    try:
        import torch
    except ImportError as error:
        hint = "install the extra `torch`, or take criterion=obs"
        raise UsageError("criterion=taylor needs torch", where="prune", hint=hint) from error
    from ...ir.fx import to_fx

    tapped = model.clone()
    named = {str(v.name): v for node in tapped.graph for v in node.outputs}
    outputs = len(tapped.graph.outputs)
    inner = [name for name in values if name in named]
    tapped.graph.outputs.extend(named[name] for name in inner)
    bridge = to_fx(tapped)
    totals = {name: np.zeros(1) for name in inner}
    for feed in feeds:
        arguments = [torch.from_numpy(np.ascontiguousarray(feed[name])) for name in bridge.inputs]
        found = bridge.module(*arguments)
        heads = [y for y in found[:outputs] if y.is_floating_point() and y.requires_grad]
        # what comes before the first weight, a reshaped input say, has no gradient to take
        taps = {name: tap for name, tap in zip(inner, found[outputs:], strict=True) if tap.requires_grad}
        for _ in range(_DIRECTIONS):
            projected = sum(_projection(y, rng) for y in heads)
            gradients = torch.autograd.grad(projected, list(taps.values()), retain_graph=True, allow_unused=True)
            for (name, tap), gradient in zip(taps.items(), gradients, strict=True):
                if gradient is not None:
                    totals[name] = totals[name] + _squared(tap * gradient, values[name])
    return {name: total for name, total in totals.items() if total.size > 1}


def _projection(y: Any, rng: np.random.Generator) -> Any:
    import torch

    signs = torch.from_numpy(rng.choice((-1.0, 1.0), tuple(y.shape)).astype(np.float32)).to(y.dtype)
    spread = float(y.detach().std()) if y.numel() > 1 else 1.0
    return (y * signs).sum() / max(spread, 1e-12)


def _squared(product: Any, axis: int) -> Floats:
    """Σ over samples of (Σ over positions)², per channel."""
    others = [a for a in range(product.dim()) if a not in (0, axis % product.dim())]
    per_sample = product.sum(others) if others else product
    return np.asarray((per_sample**2).sum(0).detach().numpy(), np.float64)

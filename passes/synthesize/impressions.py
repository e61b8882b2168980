"""Class impressions: what the layer that decides reads when the network is led to decide for a class. Needs PyTorch.

Pictures made without data reach few classes, and excite deep layers unlike real ones. Decisions can be had from close
by: values drawn where the network's last feature maps begin, as typical as their readers' biases say, are moved until a
class is named. They cost a few small products each, so there can be thousands. Source: Nayak et al., "Zero-Shot
Knowledge Distillation in Deep Networks", ICML 2019, who move the network's inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.fx import to_fx
from ...ir.layers import Layer
from ..recover.precision import mixed
from ..recover.student import with_outputs
from .decisions import Tail
from .typicality import stored_statistics

__all__ = ["Impressions", "impressions", "led", "typical_spread"]

Floats = npt.NDArray[np.floating]
Tensor = Any

_STEPS = 10  # of Adam; with the stride, enough for most classes to be named beyond doubt
_STRIDE = 0.2  # of the spread, the most that a value moves in one step
_BATCH = 256
_SIDE = 4  # of the maps that are drawn where only averages over positions matter


@dataclass(frozen=True)
class Impressions:
    """Inputs of a layer that ends in scores, [samples, features], and its outputs [samples, classes].

    Every other one is a draw as it came, the others are led to a class each, all classes alike.
    """

    features: Floats
    scores: Floats


def impressions(
    model: ir.Model, layer: Layer, tail: Tail, count: int, seed: int, progress: Callable[[float], None] = lambda _: None
) -> Impressions:
    """`count` impressions of the layer at the end of the tail."""
    import torch

    run = _runner(model, layer, tail)
    generator = torch.Generator().manual_seed(seed)
    shape = (tail.shape[0], *(min(size, _SIDE) if tail.positionwise else size for size in tail.shape[1:]))
    known = stored_statistics(tail.entry)
    if known is None:
        with torch.no_grad():
            mean, std = _moments(run(_drawn(_BATCH, shape, generator))[0].numpy(), tail.first)
        spread = typical_spread(tail.first.offset(), mean - tail.first.offset(), std)
        center, size = np.zeros(shape[0]), np.full(shape[0], spread)
    else:
        center, size = known
    shift, scale = (torch.tensor(a.reshape(-1, *[1] * (len(shape) - 1)), dtype=torch.float32) for a in (center, size))
    classes, features, scores = len(layer.matrix()), [], []
    for start in range(0, count, 2 * _BATCH):
        progress(start / count)
        drawn = shift + scale * _drawn(_BATCH, shape, generator)
        wanted = (start // 2 + torch.arange(_BATCH)) % classes
        for samples in (drawn, led(lambda x: run(x)[2], drawn, wanted, _STRIDE * float(size.mean()))):
            with torch.no_grad():
                _, read, decided = run(samples)
            features.append(read.numpy())
            scores.append(decided.numpy())
    return Impressions(np.concatenate(features)[:count], np.concatenate(scores)[:count])


def _runner(model: ir.Model, layer: Layer, tail: Tail) -> Callable[[Tensor], list[Tensor]]:
    """From the tail's entry to the result of its first layer, the input and the result of the last."""
    source = layer.node.inputs[0]
    assert source is not None
    names = [str(v.name) for v in (tail.first.output, source, layer.output)]
    outputs = {v.name for v in model.graph.outputs}
    copy = with_outputs(model.clone(), [name for name in names if name not in outputs])
    results = {node.outputs[0].name for node in tail.nodes}
    bridge = to_fx(copy, [node for node in copy.graph if node.outputs[0].name in results], trainable=False)
    places = [bridge.outputs.index(name) for name in names]

    def run(x: Tensor) -> list[Tensor]:
        with mixed(x.device):
            found = bridge.module(x)
        return [found[place].float() for place in places]

    return run


def led(scores: Callable[[Tensor], Tensor], start: Tensor, wanted: Tensor, stride: float) -> Tensor:
    """`x ← x + Adam(∇ log softmax(scores(x))[wanted])`, steps of at most about `stride`, from the start."""
    import torch

    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=stride)
    for _ in range(_STEPS):
        loss = torch.nn.functional.cross_entropy(scores(x), wanted, reduction="sum")
        (x.grad,) = torch.autograd.grad(loss, [x])
        optimizer.step()
    return x.detach()


def typical_spread(bias: Floats, shift: Floats, std: Floats) -> float:
    """The s at which a layer's results `b + s·(shift + std·n)` have means as large as their deviations, over channels.

    `‖b + s·shift‖² = s²·‖std‖²`: training leaves a channel's mean seldom far from its deviation. 1 where no s does.
    """
    b, m, d = (np.asarray(x, np.float64) for x in (bias, shift, std))
    quadratic, linear, constant = float(d @ d - m @ m), -2.0 * float(b @ m), -float(b @ b)
    roots = np.roots([quadratic, linear, constant]) if quadratic or linear else np.zeros(0)
    found = [float(root.real) for root in roots if abs(root.imag) < 1e-9 and root.real > 0]
    return min(found, default=1.0)


def _drawn(count: int, shape: tuple[int, ...], generator: Any) -> Tensor:
    """[count, channels, *positions] of deviation 1, pictures in the layout that convolutions are fastest in."""
    import torch

    x = torch.randn((count, *shape), generator=generator)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _moments(values: Floats, layer: Layer) -> tuple[Floats, Floats]:
    """Mean and deviation of every channel of a layer's result."""
    channel = 1 if layer.node.op_type == "Conv" else values.ndim - 1
    axes = tuple(a for a in range(values.ndim) if a != channel)
    return values.mean(axes, dtype=np.float64), values.std(axes, dtype=np.float64)

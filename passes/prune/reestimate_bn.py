"""`reestimate-bn`: what a BatchNorm subtracts and divides by, taken again on the inputs at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.graph import constant, is_constant
from ...ir.walk import Walk
from ..base import Pass
from ..context import Context

__all__ = ["ReestimateBatchNorm"]


@dataclass(frozen=True)
class ReestimateBatchNorm(Pass):
    """BN(x; γ, β, μ, σ²)  ⇒  BN(x; γ, β, E[x], V[x]) over the user's or synthesised inputs, first to last

    For models that still hold BatchNormalization nodes after their weights changed, by `prune` or `fold-channels`: each
    value gets back the mean β and deviation |γ| of training. A channel that the inputs leave constant keeps μ and σ².
    """

    name: ClassVar[str] = "reestimate-bn"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        nodes = [n for n in model.graph if n.op_type == "BatchNormalization" and n.domain in ("", "ai.onnx")]
        feeds = list(context.data or context.synthetic or ())
        shapes.infer(model)
        walk = Walk(model, feeds) if feeds else None
        for node in nodes:
            if walk is None:
                context.record.skip(node, "no inputs: run synthesize-inputs first, or give --data")
            elif not all(_owned(v) for v in node.inputs[3:5]):
                context.record.skip(node, "its statistics are shared or not constant")
            elif context.record.change(node, f"statistics of {_samples(walk, node)} values per channel"):
                _reestimate(walk, node)
                walk.release(set())


def _owned(value: ir.Value | None) -> bool:
    return value is not None and is_constant(value) and value.producer() is None and len(list(value.uses())) == 1


def _observed(walk: Walk, node: ir.Node) -> np.ndarray:
    source = node.inputs[0]
    assert source is not None
    values = np.concatenate([np.asarray(a, np.float64) for a in walk.get([source])[0]])
    return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)


def _samples(walk: Walk, node: ir.Node) -> int:
    return int(_observed(walk, node).shape[1])


def _reestimate(walk: Walk, node: ir.Node) -> None:
    channels = _observed(walk, node)
    mean, variance = channels.mean(1), channels.var(1)
    idle = variance <= 1e-12
    for place, fresh in ((3, mean), (4, variance)):
        value = node.inputs[place]
        assert value is not None
        before = constant(value)
        assert before is not None
        array = np.where(idle, before, fresh).astype(before.dtype)
        value.const_value = ir.Tensor(array, name=value.name)

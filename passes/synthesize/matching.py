"""The loss of distilled inputs: a model as a torch module that returns the values to match. Needs PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as F

from ...ir.fx import to_fx
from ..recover.precision import mixed
from ..recover.student import with_outputs
from .distillation import Statistics, distance, swing

__all__ = ["Matching"]

Tensor = Any

_CONVOLUTIONS = {torch.conv1d, torch.conv2d}


class Matching:
    """Mean distance of all values with statistics, and `decisions` times the cross-entropy of the first output.

    swing: shift what strided convolutions read at random.
    """

    def __init__(self, model: ir.Model, statistics: Mapping[str, Statistics], decisions: float, swing: bool) -> None:
        bridge = to_fx(with_outputs(model.clone(), list(statistics)), trainable=False)
        self._module = bridge.module
        self._statistics = list(statistics.values())
        self._decisions = decisions
        if swing:
            _swing_strided(self._module)

    def loss_of(self, samples: int) -> Callable[[Tensor], Tensor]:
        """The loss of a batch, with decisions drawn once for its samples."""
        wanted: Tensor | None = None

        def loss(x: Tensor) -> Tensor:
            nonlocal wanted
            with mixed(x.device):
                scores, *values = self._module(_channels_last(x))
            values = values[len(values) - len(self._statistics) :]
            total = torch.zeros(())
            if self._statistics:
                parts = [distance(v.float(), known) for v, known in zip(values, self._statistics, strict=True)]
                total = torch.stack(parts).mean()
            if self._decisions:
                wanted = torch.randint(scores.shape[1], (samples,)) if wanted is None else wanted
                total = total + self._decisions * F.cross_entropy(scores.float(), wanted)
            return total

        return loss


def _channels_last(x: Tensor) -> Tensor:
    """Pictures in the layout that convolutions are fastest in."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _swing_strided(module: Any) -> None:
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _CONVOLUTIONS or len(node.args) < 4:
            continue
        stride = node.args[3]
        if max(stride) > 1:
            with graph.inserting_before(node):
                shifted = graph.call_function(swing, (node.args[0], tuple(stride)))
            node.update_arg(0, shifted)
    module.recompile()

"""`compress-layers`: each layer rounded by itself, for inputs as BatchNorm statistics describe them; nothing runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.layers import Layer, layer_of
from ...ir.propagate import propagated
from ...ir.shapes import infer
from ...ir.statistics import Moments
from ..base import Pass
from ..context import Context
from .gptq import solve
from .round_weights import store
from .weights import FORMATS

__all__ = ["CompressLayers", "statistical_moments"]

Floats = npt.NDArray[np.float64]

_DEVIATIONS = 6.0  # range of a channel around its mean; only moments are used here
_DAMPING = 1e-2  # of the mean diagonal: dead channels have no variance


@dataclass(frozen=True)
class CompressLayers(Pass):
    """W, b  ⇒  s·q, b + E[(W − s·q)·x] with E‖W·x − s·q·x‖² least for x = act(z), z ~ N(β, γ²) channel by channel

    Layer-wise data-free compression: the second moments E[xxᵀ] = diag(Var x) + E x·E xᵀ of independent channels come
    from the statistics of a BatchNorm before the layer, through activations, pooling, sums and concatenation. Layers
    are independent of each other and of their order. Put `equalize` and `absorb-bias` before it.
    weights, zero-points: as in `round-weights`. (Horton et al. 2022)
    """

    weights: Literal["int8", "int4", "int3", "int2", "ternary"] = "int4"
    zero_points: bool = True
    name: ClassVar[str] = "compress-layers"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        infer(model)
        known = propagated(model, _DEVIATIONS)
        low, high = FORMATS[self.weights]
        zero_points = self.zero_points and self.weights not in ("int8", "ternary")
        for node in [n for n in model.graph if n.op_type in ("Conv", "Gemm", "MatMul")]:
            layer = layer_of(node)
            source = node.inputs[0]
            if layer is None or source is None:
                context.record.skip(node, "its weights are shared, not constant, or of a form that is not looked at")
                continue
            if source not in known:
                context.record.skip(node, f"no BatchNorm statistics lead to {source.name}")
                continue
            mean, hessian = statistical_moments(layer, known[source])
            weight = np.asarray(layer.matrix(), np.float64).reshape(len(mean), -1, mean.shape[1])
            levels, scale = solve(weight, hessian, low, high, zero_points=zero_points)
            shift = np.einsum("gri,gi->gr", weight - levels * scale[:, :, None], mean)
            if context.record.change(node, f"{mean.shape[1]} inputs per output, by their statistics"):
                store(layer, levels, scale, shift.ravel())


def statistical_moments(layer: Layer, x: Moments) -> tuple[Floats, Floats]:
    """E[x] as [groups, n] and diag(Var x) + E[x]E[x]ᵀ, slightly damped, as [groups, n, n]; taps are alike."""
    channels, taps = layer.matrix().shape[1:]
    mean, variance = (np.broadcast_to(a, (len(x.mean),)).astype(np.float64) for a in (x.mean, np.square(x.std)))
    groups = len(mean) if layer.depthwise else 1
    mean, variance = (np.repeat(a, taps).reshape(groups, -1) for a in (mean, variance))
    assert mean.shape[1] == channels * taps
    second = mean[:, :, None] * mean[:, None, :] + variance[:, :, None] * np.eye(channels * taps)
    level = np.maximum(np.einsum("gii->g", second) / second.shape[1], 1e-12)
    return mean, second + _DAMPING * level[:, None, None] * np.eye(channels * taps)

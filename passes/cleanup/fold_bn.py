"""BatchNormalization into the convolution or matrix product before it; its statistics stay as metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import attribute, constant, only_consumer
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .affine import Vector, absorb, channel_axis
from .edit import Editor, become, standard_nodes

__all__ = ["FoldBatchNorm", "is_training", "scale_and_shift"]

_LINEAR = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """op(x, W, b) ▸ BN(γ, β, μ, σ²)  ⇒  op(x, W·γ/σ, (b−μ)·γ/σ + β),  op: Conv, ConvTranspose, Gemm, MatMul

    The value keeps `planish.statistics`: mean β and standard deviation |γ| per channel.
    """

    name: ClassVar[str] = "fold-bn"

    def run(self, model: ir.Model, context: Context) -> None:
        edit = Editor(model)
        shapes: Shapes | None = None
        for node in standard_nodes(model):
            if node.op_type != "BatchNormalization":
                continue
            shapes = shapes or infer(model)
            reason = _fold(node, shapes, edit, context)
            if reason:
                context.record.skip(node, reason)


def _fold(node: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> str:
    if is_training(node, shapes.version):
        return "in training mode: it normalises by the statistics of its input"
    parameters = [constant(v) for v in node.inputs[1:5]]
    if len(parameters) < 4 or any(p is None for p in parameters):
        return "its parameters are not constant"
    scale, shift, mean, variance = (p for p in parameters if p is not None)
    a, b = scale_and_shift(scale, shift, mean, variance, attribute(node, "epsilon", 1e-5))
    x = node.inputs[0]
    producer = x.producer() if x is not None else None
    if x is None or producer is None or producer.op_type not in _LINEAR or producer.domain not in ("", "ai.onnx"):
        what = "a graph input" if producer is None else producer.op_type
        return f"it follows {what}, which has no weights to fold into"
    if producer.graph is not node.graph:
        return f"the {producer.op_type} before it is in another graph, which may run less often"
    if only_consumer(x) is not node:
        return f"the {producer.op_type} before it has {len(list(x.uses()))} readers or is a graph output"
    rank = shapes.rank(x)
    if rank is None or channel_axis(producer, rank) != 1:
        return f"the channels of {producer.op_type} are not axis 1"
    absorbed = absorb(producer, a, b, shapes, edit)
    if isinstance(absorbed, str):
        return f"{producer.op_type}: {absorbed}"
    if context.record.change(node, f"into {producer.op_type} {producer.name or x.name}"):
        node.name = producer.name
        statistics = {"mean": shift, "std": np.abs(scale), "axis": 1, "source": "batch-norm"}
        metadata.put(node.outputs[0], metadata.STATISTICS, statistics)
        become(node, absorbed.op_type, absorbed.inputs, absorbed.attributes)
    return ""


def scale_and_shift(scale: Any, shift: Any, mean: Any, variance: Any, epsilon: Any) -> tuple[Vector, Vector]:
    """a and b such that BN(x) = a·x + b, in float64."""
    a = np.asarray(scale, np.float64) / np.sqrt(np.asarray(variance, np.float64) + float(epsilon))
    return a, np.asarray(shift, np.float64) - np.asarray(mean, np.float64) * a


def is_training(node: ir.Node, version: int) -> bool:
    """True for a BatchNormalization whose statistics are those of its input, or not one number per channel."""
    if version < 7 and not attribute(node, "is_test", 0):
        return True
    if version < 9 and not attribute(node, "spatial", 1):
        return True  # one statistic per element, not per channel
    used = [o for o in node.outputs[1:] if o.uses() or o.is_graph_output()]
    return bool(attribute(node, "training_mode", 0)) or bool(used)

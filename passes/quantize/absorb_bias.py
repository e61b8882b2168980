"""`absorb-bias`: what every value of a channel has in common moves through the ReLU into the next bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import attribute, constant, fresh_name, initializer, only_consumer
from ...ir.shapes import infer
from ...ir.statistics import Moments
from ..base import Pass
from ..context import Context
from .bias_correction import mean_shift
from .legality import ANCHORS, weight_axis, why_not_matrix
from .preactivation import moments

__all__ = ["AbsorbBias", "absorbed"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AbsorbBias(Pass):
    """Relu(x·W₁ + b₁)·W₂ + b₂  ⇒  Relu(x·W₁ + b₁ − c)·W₂ + (b₂ + c·W₂),  c = max(0, μ − deviations·σ) per channel

    Exact wherever x·W₁ + b₁ ≥ c: all but Φ(−deviations) of a normal distribution, 0.13 % at 3.
    padded: also into convolutions that pad, whose borders then see −c in place of 0; left alone when false.
    (Nagel et al. 2019, section 4.1.3)
    """

    deviations: float = 3.0
    padded: bool = False
    name: ClassVar[str] = "absorb-bias"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        infer(model)
        pairs = [(node, relu) for node in model.graph if (relu := _activation(node)) is not None]
        known = moments(model, [node.outputs[0] for node, _ in pairs], context)
        for node, relu in pairs:
            found = known.get(str(node.outputs[0].name))
            reason = self._why_not(node, relu) or ("no statistics, and no inputs" if found is None else "")
            if reason or found is None:
                context.record.skip(node, reason)
                continue
            c = absorbed(found, self.deviations)
            if not c.any():
                context.record.skip(node, "no channel is always active")
            elif context.record.change(node, f"{np.count_nonzero(c)} channels, up to {c.max():.3g}"):
                _move(model.graph, node, relu, c)

    def _why_not(self, node: ir.Node, relu: ir.Node) -> str:
        if reason := why_not_matrix(node) or _why_no_bias(node):
            return reason
        if relu.outputs[0].is_graph_output() or not relu.outputs[0].uses():
            return "the activation is a graph output"
        for use in relu.outputs[0].uses():
            reader = use.node
            if reader.op_type not in ANCHORS or reader.domain or use.idx != 0 or reader.op_type == "MatMul":
                return f"{reader.op_type} reads the activation"
            if reason := why_not_matrix(reader) or _why_no_bias(reader):
                return f"{reader.name or reader.op_type}: {reason}"
            if not self.padded and _pads(reader):
                return f"{reader.name or reader.op_type} pads its input"
        return ""


def absorbed(m: Moments, deviations: float) -> Floats:
    """c = max(0, μ − deviations·σ); 0 where the moments are not finite."""
    c = np.maximum(np.asarray(m.mean - deviations * m.std, np.float64), 0.0)
    return np.where(np.isfinite(c), c, 0.0)


def _activation(node: ir.Node) -> ir.Node | None:
    """The Relu that alone reads a layer with a bias per channel."""
    if node.op_type not in ("Conv", "Gemm") or node.domain:
        return None
    reader = only_consumer(node.outputs[0])
    return reader if reader is not None and reader.op_type == "Relu" and reader.graph is node.graph else None


def _why_no_bias(node: ir.Node) -> str:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    weight = constant(node.inputs[1])
    assert weight is not None
    if bias is None:
        return ""
    numbers = constant(bias)
    if numbers is None:
        return "its bias is not constant"
    return "" if numbers.size == weight.shape[weight_axis(node)] else "its bias is not one number per output channel"


def _pads(node: ir.Node) -> bool:
    pads = np.asarray(attribute(node, "pads", [0]))
    return bool(np.any(pads)) or str(attribute(node, "auto_pad", "NOTSET")) in ("SAME_UPPER", "SAME_LOWER")


def _move(graph: ir.Graph, node: ir.Node, relu: ir.Node, c: Floats) -> None:
    _add(graph, node, -c)
    for use in list(relu.outputs[0].uses()):
        weight = constant(use.node.inputs[1])
        assert weight is not None
        groups = int(attribute(use.node, "group", 1))  # type: ignore[call-overload]
        _add(graph, use.node, mean_shift(weight, c, weight_axis(use.node), groups))
    fact = metadata.get(node.outputs[0], metadata.STATISTICS)
    if fact is not None:
        metadata.put(node.outputs[0], metadata.STATISTICS, fact | {"mean": np.asarray(fact["mean"]) - c})
    for value in (node.outputs[0], relu.outputs[0]):
        value.metadata_props.pop(metadata.EVIDENCE, None)


def _add(graph: ir.Graph, node: ir.Node, shift: Floats) -> None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    numbers = constant(bias)
    sum_ = shift if numbers is None else np.asarray(numbers, np.float64).reshape(-1) + shift
    shape = (shift.size,) if numbers is None else numbers.shape
    stem = str(bias.name) if bias is not None else f"{node.outputs[0].name}_bias"
    made = initializer(graph, fresh_name(graph, stem), np.asarray(sum_.reshape(shape), np.float32))
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, made)

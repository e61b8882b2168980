"""`smooth-activations`: the range of a normalisation's channels is shared out between them and the weights behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ModelError
from ...ir import metadata
from ...ir.graph import constant, weight_bytes
from ...ir.probe import LARGEST_OBSERVED, Probe, with_shapes
from ..base import Pass
from ..context import Context
from .legality import weight_axis, why_not_matrix

__all__ = ["SmoothActivations", "smoothing"]

Floats = npt.NDArray[np.float64]

_LIMIT = 1e4  # s stays within 1/limit … limit


@dataclass(frozen=True)
class SmoothActivations(Pass):
    """LayerNorm(x; g, b)·W  ⇒  LayerNorm(x; g/s, b/s)·sW with s = max|X|^α / max|W|^(1−α) per channel

    strength: α, the share of the activations' range that the weights take over. Every reader of the normalisation has
    to be a product with constant weights. Exact; the range of X is observed on the user's samples or on those of a
    synthesize pass, and `activation-ranges` has to come after it. (Xiao et al. 2023, SmoothQuant)
    """

    strength: float = 0.5
    name: ClassVar[str] = "smooth-activations"
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.strength < 1:
            raise ValueError("strength must be between 0 and 1")

    def run(self, model: ir.Model, context: Context) -> None:
        norms = [n for n in model.graph if n.op_type == "LayerNormalization" and n.domain in ("", "ai.onnx")]
        reasons = {id(n): _why_not(n) for n in norms}
        usable = [n for n in norms if not reasons[id(n)]]
        reach, missing = _observed(model, usable, context)
        for node in norms:
            reason = reasons[id(node)] or missing
            if reason:
                context.record.skip(node, reason)
                continue
            matrices = [_matrix(use.node) for use in node.outputs[0].uses()]
            weights = np.max([np.abs(m).max(1, initial=0.0) for m in matrices], axis=0)
            s = smoothing(reach[str(node.outputs[0].name)], weights, self.strength)
            if context.record.change(node, f"channels divided by {s.min():.3g} … {s.max():.3g}"):
                _apply(node, s)


def smoothing(activations: Floats, weights: Floats, strength: float) -> Floats:
    """s = max|X|^α / max|W|^(1−α) per channel; 1 where either is 0."""
    usable = (activations > 0) & (weights > 0)
    x, w = np.where(usable, activations, 1.0), np.where(usable, weights, 1.0)
    return np.asarray(np.where(usable, np.clip(x**strength / w ** (1 - strength), 1 / _LIMIT, _LIMIT), 1.0))


def _why_not(node: ir.Node) -> str:
    value = node.outputs[0]
    if value.is_graph_output() or not value.uses():
        return "its result is read from outside"
    for index in (1, 2):
        parameter = node.inputs[index] if index < len(node.inputs) else None
        array = constant(parameter)
        if parameter is None and index == 2:
            continue
        if parameter is None or array is None or array.dtype != np.float32 or array.ndim != 1:
            return "its scale and shift are not one constant number per channel"
        if len(parameter.uses()) > 1:
            return f"{parameter.name} is shared by {len(parameter.uses())} consumers"
    for use in value.uses():
        if use.idx or use.node.op_type not in ("MatMul", "Gemm"):
            return f"{use.node.op_type} reads it too"
        if reason := why_not_matrix(use.node):
            return reason
        weight = use.node.inputs[1]
        if weight is not None and len(weight.uses()) > 1:
            return f"{weight.name} is shared by {len(weight.uses())} consumers"
    return ""


def _observed(model: ir.Model, nodes: Sequence[ir.Node], context: Context) -> tuple[dict[str, Floats], str]:
    """max|X| per channel of each result by name, or the reason why it is not known."""
    feeds = list(context.data or context.synthetic or ())
    if not nodes:
        return {}, ""
    if not feeds or weight_bytes(model) > LARGEST_OBSERVED:
        return {}, "no inputs to observe its range on" if not feeds else "the model is too large to be run here"
    names = [str(node.outputs[0].name) for node in nodes]
    try:
        found = Probe(with_shapes(model), names)(feeds)
    except ModelError as error:
        return {}, f"the model could not be observed: {error.what}"
    return {name: np.maximum(np.abs(m.low), np.abs(m.high)) for name, m in found.items()}, ""


def _matrix(node: ir.Node) -> Floats:
    """The weight as [inputs, outputs]."""
    weight = np.asarray(constant(node.inputs[1]), np.float64)
    return weight if weight_axis(node) == 1 else weight.T


def _apply(node: ir.Node, s: Floats) -> None:
    for value in node.inputs[1:3]:
        if value is not None:
            _set(value, np.asarray(constant(value), np.float64) / s)
    for use in node.outputs[0].uses():
        weight = use.node.inputs[1]
        assert weight is not None
        scaled = _matrix(use.node) * s[:, None]
        _set(weight, scaled if weight_axis(use.node) == 1 else scaled.T)
    node.outputs[0].metadata_props.pop(metadata.EVIDENCE, None)


def _set(value: ir.Value, array: Floats) -> None:
    value.const_value = ir.Tensor(np.asarray(array, np.float32, order="C"), name=value.name)

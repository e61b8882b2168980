"""`cluster-weights`: few different levels in each weight tensor, which an NPU's weight decoder reads in fewer bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import attribute, constant
from ...ir.integer.encodings import encoding_of, is_standard
from ...ir.integer.steps import Refusal
from ...ir.quantization import Encoding
from ..base import Pass
from ..context import Context
from .bias_correction import mean_shift
from .clustering import cluster
from .legality import ANCHORS, data_inputs, weight_axis

__all__ = ["ClusterWeights"]

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class ClusterWeights(Pass):
    """DQ(W_q)  ⇒  DQ(W′_q) with at most `levels` different integers in W′_q, argmin Σ s²·(W_q − W′_q)²

    Runs behind `quantize`. Zeros stay, so a pattern of `sparsify` does. The mean that the change adds is taken out of
    an int32 bias where the input's mean is known. `least`: tensors with fewer weights are left: where little is read,
    little is saved. Fewer levels mean fewer bits for a target that decodes weights (Ethos-U) and nothing elsewhere.
    """

    levels: int = 16
    least: int = 1024
    name: ClassVar[str] = "cluster-weights"
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise ValueError("levels must be at least 2")

    def run(self, model: ir.Model, context: Context) -> None:
        done: set[ir.Value] = set()
        for node in model.graph:
            if node.op_type not in ANCHORS or not is_standard(node, node.op_type):
                continue
            stored = _stored(node, 1)
            if stored is None or stored.dtype != ir.DataType.INT8:
                context.record.skip(node, "its weights are not constant int8 levels")
                continue
            if stored not in done:
                done.add(stored)
                self._cluster(node, stored, context)
        target = context.target
        if context.record.changed and target is not None and "weight-decoder" not in target.features:
            context.record.note(f"{target} reads all weights in 8 bits: fewer levels save nothing there")

    def _cluster(self, node: ir.Node, stored: ir.Value, context: Context) -> None:
        levels = constant(stored)
        assert levels is not None
        found = np.unique(levels)
        if levels.size < self.least:
            context.record.skip(node, f"fewer than {self.least} weights")
        elif len(found) <= self.levels:
            context.record.skip(node, f"has no more than {self.levels} levels already")
        elif (encoding := _encoding(node, levels.ndim)) is None:
            context.record.skip(node, "its scale or zero point is not constant")
        else:
            chosen = _chosen(levels, encoding, self.levels)
            detail = f"{len(found)} levels become {len(np.unique(chosen))}"
            if context.record.change(node, detail):
                _correct_bias(node, encoding.dequantize(chosen) - encoding.dequantize(levels))
                stored.const_value = ir.Tensor(chosen, name=stored.name)


def _stored(node: ir.Node, i: int) -> ir.Value | None:
    """The integers behind a dequantized constant input."""
    value = node.inputs[i] if i < len(node.inputs) else None
    reader = None if value is None else value.producer()
    if reader is None or not is_standard(reader, "DequantizeLinear") or constant(reader.inputs[0]) is None:
        return None
    return reader.inputs[0]


def _encoding(node: ir.Node, rank: int) -> Encoding | None:
    value = node.inputs[1]
    reader = None if value is None else value.producer()
    assert reader is not None
    try:
        return encoding_of(reader, rank, ir.DataType.INT8)
    except Refusal:
        return None


def _chosen(levels: Array, encoding: Encoding, count: int) -> Array:
    """The clustered levels; a level counts as the squares of the scales of the channels it occurs in."""
    scale = np.asarray(encoding.scale, np.float64)
    if encoding.axis is not None:
        scale = scale.reshape([-1 if a == encoding.axis else 1 for a in range(levels.ndim)])
    found, at = np.unique(levels.astype(np.int64), return_inverse=True)
    weight = np.bincount(at.ravel(), np.broadcast_to(scale**2, levels.shape).ravel())
    chosen: Array = cluster(found, weight / weight.sum(), count)[at].reshape(levels.shape).astype(levels.dtype)
    return chosen


def _correct_bias(node: ir.Node, error: Array) -> None:
    """b_q −= rint(E[ε·x] / (s_x·s_w)) where the bias is stored in int32 levels and E[x] is known."""
    stored = _stored(node, 2)
    if stored is None or stored.dtype != ir.DataType.INT32:
        return
    levels, reader = constant(stored), next(iter(stored.uses())).node
    scale = constant(reader.inputs[1])
    mean = _input_mean(node)
    axis = weight_axis(node)
    groups = int(attribute(node, "group", 1))  # type: ignore[call-overload]
    channels = error.shape[1] * groups if node.op_type == "Conv" else error.shape[1 - axis]
    if levels is None or scale is None or mean is None or len(mean) != channels or len(list(stored.uses())) > 1:
        return
    shift = np.rint(mean_shift(error, mean, axis, groups) / np.asarray(scale, np.float64))
    limit = np.iinfo(np.int32)
    moved = np.clip(levels.astype(np.int64) - shift.astype(np.int64), limit.min, limit.max)
    stored.const_value = ir.Tensor(moved.astype(np.int32), name=stored.name)


def _input_mean(node: ir.Node) -> Array | None:
    """E[x] of each input channel, from the evidence of the value that is quantized in front of the node."""
    value: ir.Value | None = data_inputs(node)[0]
    for op in ("DequantizeLinear", "QuantizeLinear"):
        maker = None if value is None else value.producer()
        if maker is None or not is_standard(maker, op):
            return None
        value = maker.inputs[0]
    fact = None if value is None else metadata.get(value, metadata.EVIDENCE)
    return np.asarray(fact["mean"]) if fact and fact.get("mean") else None

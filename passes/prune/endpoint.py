"""Where the output of a linear layer is compared: behind per-channel scales and the residual Add, up to a clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.graph import attribute, constant, is_constant, only_consumer
from ...ir.layers import Floats, Layer

__all__ = ["Endpoint", "endpoint"]


@dataclass(frozen=True)
class Endpoint:
    """z = gain·y + shift + other: y is the layer's output, z what its readers clip to [low, high].

    gain, shift: [outputs]; other: the other operand of a residual Add, or None.
    """

    value: ir.Value
    gain: Floats
    shift: Floats
    other: ir.Value | None = None
    low: float = -np.inf
    high: float = np.inf

    def intervals(self, z: Floats, other: Floats | None) -> tuple[Floats, Floats, Floats]:
        """(y, lowest, highest) for wanted rows z [n, outputs]: every y within the interval gives the same clipped z."""
        gain = np.where(self.gain == 0, 1.0, self.gain).astype(z.dtype)
        base = self.shift.astype(z.dtype) if other is None else other + self.shift.astype(z.dtype)
        y = (z - base) / gain
        below = np.where(z <= self.low, -np.inf, np.minimum(z, self.high))
        above = np.where(z >= self.high, np.inf, np.maximum(z, self.low))
        first, second = (below - base) / gain, (above - base) / gain
        return y, np.minimum(first, second), np.maximum(first, second)


def endpoint(layer: Layer, known: Callable[[ir.Value], bool]) -> Endpoint:
    """The furthest value affine in the layer's output; known: whether a residual operand has its final value."""
    width = len(layer.matrix())
    value, gain, shift = layer.output, np.ones(width), np.zeros(width)
    while (node := only_consumer(value)) is not None:
        step = _affine(node, value, width)
        if step is None:
            break
        gain, shift = step[0] * gain, step[0] * shift + step[1]
        value = node.outputs[0]
    other = None
    if node is not None and node.op_type == "Add" and not node.outputs[0].is_graph_output():
        found = next((v for v in node.inputs if v is not value), None)
        if found is not None and found.shape == value.shape and not is_constant(found) and known(found):
            value, other = node.outputs[0], found
    return Endpoint(value, gain, shift, other, *_clip(value))


def _affine(node: ir.Node, value: ir.Value, width: int) -> tuple[Floats, Floats] | None:
    """(a, b) of a node that computes a·value + b per channel, a > 0 or < 0 everywhere but for dead channels."""
    one, none = np.ones(width), np.zeros(width)
    if node.op_type == "BatchNormalization" and node.inputs[0] is value:
        parameters = [constant(v) for v in node.inputs[1:5]]
        if any(p is None for p in parameters) or len(node.outputs) > 1:
            return None
        gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
        scale = gamma / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))  # type: ignore[arg-type]
        return scale, beta - scale * mean
    if node.op_type not in ("Mul", "Add") or value.shape is None:
        return None
    other = next((v for v in node.inputs if v is not value), None)
    found = _per_channel(other, len(value.shape), width, value)
    if found is None:
        return None
    return (found, none) if node.op_type == "Mul" else (one, found)


def _per_channel(value: ir.Value | None, rank: int, width: int, like: ir.Value) -> Floats | None:
    """A constant with one number per channel, or one in all, as [width]."""
    contents = constant(value)
    producer = like.producer()
    if contents is None or producer is None or contents.ndim > rank:
        return None
    shape = (1,) * (rank - contents.ndim) + contents.shape
    axis = 1 if _convolved(like) else rank - 1
    if contents.size not in (1, width) or (contents.size > 1 and shape[axis] != width):
        return None
    return np.broadcast_to(np.asarray(contents, np.float64).ravel(), (width,)).copy()


def _convolved(value: ir.Value) -> bool:
    """Whether the channels of a value that a chain of affine nodes made lie on axis 1, as a convolution leaves them."""
    producer = value.producer()
    while producer is not None and producer.op_type in ("Mul", "Add", "BatchNormalization"):
        moving = next((v for v in producer.inputs if v is not None and not is_constant(v)), None)
        producer = None if moving is None else moving.producer()
    return producer is not None and producer.op_type == "Conv"


def _clip(value: ir.Value) -> tuple[float, float]:
    """The widest clip among all that read the value; (−∞, ∞) when one of them reads it whole."""
    bounds = [_bounds(use.node) for use in value.uses()]
    if not bounds or value.is_graph_output() or any(b is None for b in bounds):
        return -np.inf, np.inf
    known = [b for b in bounds if b is not None]
    return min(low for low, _ in known), max(high for _, high in known)


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip":
        return None
    limits = [attribute(node, "min"), attribute(node, "max")]
    for place in (1, 2):
        operand = node.inputs[place] if place < len(node.inputs) else None
        if operand is not None:
            contents = constant(operand)
            if contents is None:
                return None
            limits[place - 1] = float(contents)
    low, high = limits
    return -np.inf if low is None else float(low), np.inf if high is None else float(high)  # type: ignore[arg-type]

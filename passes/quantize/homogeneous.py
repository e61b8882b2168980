"""Channels that may be scaled freely: every operator between the weights that make them and those that read them
answers f(s·x) = s·f(x) channel by channel, for s > 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.channels.atoms import IntArray
from ...ir.channels.labelling import Field, Labelling
from ...ir.channels.rules import RULES
from ...ir.graph import attribute, constant, is_constant, static_shape
from ...ir.propagate import clip_bounds
from .legality import weight_axis, why_not_matrix

__all__ = ["Layer", "Offset", "Scalable", "scalable"]

Floats = npt.NDArray[np.float64]

# the channel rules of these say where each channel goes; scaling passes through them unchanged
_HOMOGENEOUS = frozenset(
    [
        "Relu",
        "LeakyRelu",
        "Identity",
        "Dropout",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Resize",
        "Abs",
        "Neg",
        "ReduceMean",
        "ReduceSum",
        "ReduceMax",
        "ReduceMin",
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Split",
        "Slice",
        "DepthToSpace",
        "SpaceToDepth",
    ]
)


@dataclass(frozen=True)
class Layer:
    """A Conv, Gemm or MatMul as a matrix of its weights over taps: row m makes channel out[m] from channels into[m].

    out: [M]; into: [M, N], −1 where what is read cannot be scaled.
    """

    node: ir.Node
    weight: ir.Value
    bias: ir.Value | None
    out: IntArray
    into: IntArray

    def rows(self, weight: Floats) -> Floats:
        """The weight as [M, N, taps]."""
        matrix = weight if weight_axis(self.node) == 0 else weight.T
        return matrix.reshape(*self.into.shape, -1)

    def stored(self, rows: Floats) -> Floats:
        """The inverse of `rows`, in the layout of the weight."""
        shape = static_shape(self.weight)
        assert shape is not None
        return rows.reshape(shape) if weight_axis(self.node) == 0 else np.ascontiguousarray(rows[:, :, 0].T)


@dataclass(frozen=True)
class Offset:
    """A constant added to channels: one number for each of `channels` along `axis`."""

    value: ir.Value
    axis: int
    channels: IntArray


@dataclass
class Scalable:
    """layers: in order; offsets: constants added between them; state: the channel of every position of every value;

    frozen: why a channel cannot be scaled; floors: channels that end in a bound, with the least s they may have.
    """

    layers: list[Layer] = field(default_factory=list)
    offsets: list[Offset] = field(default_factory=list)
    state: Labelling = field(default_factory=Labelling)
    frozen: Mapping[int, str] = field(default_factory=dict)
    floors: list[tuple[IntArray, Floats]] = field(default_factory=list)


def scalable(model: ir.Model, reach: Mapping[str, Floats] | None = None) -> Scalable:
    """The layers of the main graph and the channels between them; shapes must be inferred.

    reach: by name, how far each channel of a value goes; Clip(x, 0, u) is passed by the channels that stay below u.
    """
    found = Scalable()
    for node in model.graph:
        standard = node.domain in ("", "ai.onnx")
        if standard and node.op_type in ("Conv", "Gemm", "MatMul"):
            _linear(node, found)
        elif standard and node.op_type == "Clip" and _below_bound(node, reach or {}, found):
            RULES["Clip"](node, found.state)
        elif standard and node.op_type == "Shape":
            continue
        elif standard and (reason := _why_not(node, found)) is None:
            RULES[node.op_type](node, found.state)
        else:
            for value in node.inputs:
                found.state.freeze(value, reason if standard and reason else f"{node.op_type} is not homogeneous")
    for output in model.graph.outputs:
        found.state.freeze(output, "graph output")
    for value in list(found.state.fields):
        if any(use.node.graph is not model.graph for use in value.uses()):
            found.state.freeze(value, "read by a subgraph")
    resolve = found.state.atoms.find
    found.layers = [
        Layer(y.node, y.weight, y.bias, resolve(y.out), np.where(y.into < 0, -1, resolve(np.maximum(y.into, 0))))
        for y in found.layers
    ]
    found.offsets = [Offset(o.value, o.axis, resolve(o.channels)) for o in found.offsets]
    found.floors = [(resolve(channels), least) for channels, least in found.floors]
    found.frozen = found.state.atoms.frozen()
    return found


def _below_bound(node: ir.Node, reach: Mapping[str, Floats], found: Scalable) -> bool:
    """Pass Clip(x, 0, u): channels that reach u are frozen, the others must not reach it by being scaled up."""
    x = node.inputs[0]
    fields = found.state.of(x)
    if x is None or len(fields) != 1 or x.name not in reach:
        return False
    far, channels = reach[str(x.name)], fields[0].atoms.ravel()
    low, high = clip_bounds(node)
    if low != 0 or not high > 0 or far.size != channels.size or fields[0].axes != (1,):
        return False
    saturated = ~(far < high)
    if saturated.any():
        found.state.atoms.freeze(channels[saturated], f"reaches the bound {high:g}")
    found.floors.append((channels, np.maximum(far, 0.0) / high))
    return True


def _linear(node: ir.Node, found: Scalable) -> None:
    x, weight = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    rank = len(x.shape) if x is not None and x.shape is not None else 0
    axis = rank - 1 if node.op_type == "MatMul" else 1
    reason = _why_not_layer(node) or ("" if rank else "the rank of its input is not known")
    if reason or weight is None:
        found.state.freeze(x, f"{node.op_type} {node.name}: {reason}")
        return
    found.state.freeze(x, f"{node.op_type} mixes another axis", but=(axis,))
    channels = found.state.alone(x, axis, f"{node.op_type} reads it together with another axis")
    shape = static_shape(weight)
    assert shape is not None
    out = weight_axis(node)
    made = found.state.atoms.fresh(shape[out])
    width = shape[1] if node.op_type == "Conv" else shape[1 - out]
    into = np.full((shape[out], width), -1, np.int64)
    if channels is not None and channels.size:
        groups = channels.size // width
        into = np.repeat(channels.reshape(groups, width), shape[out] // groups, axis=0)
    found.layers.append(Layer(node, weight, bias, made, into))
    found.state.put(node.outputs[0], [Field((axis,), made)])


def _why_not_layer(node: ir.Node) -> str:
    reason = why_not_matrix(node)
    if reason:
        return reason
    for value in node.inputs[1:]:
        if value is not None and value.producer() is not None:
            return f"{value.name} is made by a Constant node, not an initialiser"
        if value is not None and (len(value.uses()) > 1 or value.is_graph_output()):
            return f"{value.name} is shared by {len(value.uses())} consumers"
    shape = static_shape(node.inputs[1])
    if shape is None or 0 in shape:
        return "its weights are empty"
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None and bias.size != shape[weight_axis(node)]:
        return "its bias is not one number per output channel"
    return ""


def _why_not(node: ir.Node, found: Scalable) -> str | None:
    """Why scaling cannot pass a node that is no layer; None when its channel rule applies."""
    fields = [found.state.of(v) for v in node.inputs if v is not None]
    if not any(fields):
        return "its inputs have no channels to scale"
    if node.op_type in _HOMOGENEOUS:
        return None
    if node.op_type == "PRelu":
        return None if is_constant(node.inputs[1]) else "PRelu with a computed slope"
    if node.op_type == "Concat":
        return "Concat with a constant" if any(is_constant(v) for v in node.inputs) else None
    if node.op_type == "Pad":
        return _pad(node)
    if node.op_type in ("Add", "Sub", "Sum"):
        return _sum(node, found)
    return f"{node.op_type} is not homogeneous"


def _pad(node: ir.Node) -> str | None:
    filling = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    number = np.asarray(attribute(node, "value", 0.0) if filling is None else filling, np.float64)
    given = len(node.inputs) > 2 and node.inputs[2] is not None
    return "Pad with a value other than 0" if number.any() or (given and filling is None) else None


def _sum(node: ir.Node, found: Scalable) -> str | None:
    constants = [v for v in node.inputs if is_constant(v)]
    if not constants:
        shapes = {str(v.shape) for v in node.inputs if v is not None and v.shape is not None}
        known = all(found.state.of(v) for v in node.inputs)
        return None if known and len(shapes) == 1 else f"{node.op_type} with a value that cannot be scaled"
    offset, other = constants[0], next(v for v in node.inputs if not is_constant(v))
    shape, fields = static_shape(offset), found.state.of(other)
    rank = len(other.shape) if other is not None and other.shape is not None else 0
    if shape is None or len(constants) > 1 or len(fields) != 1 or len(fields[0].axes) != 1 or offset is None:
        return f"{node.op_type} with a constant that is not one number per channel"
    axis = fields[0].axes[0] - (rank - len(shape))
    if axis < 0 or len(shape) > rank or shape[axis] != fields[0].atoms.size:
        return f"{node.op_type} with a constant that is not one number per channel"
    if len(offset.uses()) > 1 or offset.producer() is not None or offset.is_graph_output():
        return f"{offset.name} is shared by {len(offset.uses())} consumers"
    found.offsets.append(Offset(offset, axis, fields[0].atoms))
    return None

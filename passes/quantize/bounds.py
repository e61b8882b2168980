"""What a value cannot leave: its operator's own bounds, the value whose elements it holds, or the graph's input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ...ir.propagate import clip_bounds

__all__ = ["bounds", "given", "holder"]

# results that an operator cannot exceed, whatever its input
_BOUNDED: Mapping[str, tuple[float, float]] = {
    "Abs": (0.0, np.inf),
    "Erf": (-1.0, 1.0),
    "Exp": (0.0, np.inf),
    "HardSigmoid": (0.0, 1.0),
    "ReduceL2": (0.0, np.inf),
    "Relu": (0.0, np.inf),
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Softplus": (0.0, np.inf),
    "Sqrt": (0.0, np.inf),
    "Tanh": (-1.0, 1.0),
}
# results that lie between the lowest and highest of their input (zeros are padded only into what holds 0)
_KEEPS_BOUNDS = frozenset(
    {
        "AveragePool",
        "DepthToSpace",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "MaxPool",
        "ReduceMean",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


def bounds(value: ir.Value) -> tuple[float, float]:
    """The interval that the operators producing the value cannot leave."""
    node = value.producer()
    if node is None:
        return -np.inf, np.inf
    if node.op_type == "Clip":
        return clip_bounds(node)
    if node.op_type in _KEEPS_BOUNDS and node.inputs[0] is not None:
        return bounds(node.inputs[0])
    return _BOUNDED.get(node.op_type, (-np.inf, np.inf))


def given(value: ir.Value) -> ir.Value | None:
    """The input of the graph that a value is, also where only its elements were moved since; None for what is made."""
    node = value.producer()
    if node is None:
        return value if value.is_graph_input() else None
    moved = node.op_type in _KEEPS_BOUNDS or node.op_type == "Pad"
    return given(node.inputs[0]) if moved and node.inputs[0] is not None else None


def holder(value: ir.Value) -> ir.Value | None:
    """The value whose elements, or means of them, a value holds."""
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type in _KEEPS_BOUNDS else None

"""Initial states of recurrent layers that are zero, which is what an absent state means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import attribute, constant
from ..base import Pass
from ..context import Context
from .edit import become, standard_nodes

__all__ = ["DropZeroState"]

# operator -> inputs that are states
_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
_PASSING = {"Expand", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Identity", "Slice", "Split", "Tile", "Concat"}


@dataclass(frozen=True)
class DropZeroState(Pass):
    """LSTM(x, …, h₀=0, c₀=0)  ⇒  LSTM(x, …);  GRU and RNN alike"""

    name: ClassVar[str] = "drop-zero-state"

    def run(self, model: ir.Model, context: Context) -> None:
        for node in standard_nodes(model):
            if node.op_type not in _STATES:
                continue
            inputs = list(node.inputs)
            zero = [i for i in _STATES[node.op_type] if i < len(inputs) and _is_zero(inputs[i])]
            if not zero or not context.record.change(node, f"{len(zero)} initial states are zero"):
                continue
            for i in zero:
                inputs[i] = None
            while inputs[-1] is None:
                inputs.pop()
            become(node, node.op_type, inputs, dict(node.attributes))


def _is_zero(value: ir.Value | None) -> bool:
    """True for a value whose every element is 0, however its shape is computed."""
    pending, steps = [value], 0
    while pending:
        value, steps = pending.pop(), steps + 1
        if value is None or steps > 32:
            return False
        node = value.producer()
        if node is None or node.op_type == "Constant":
            array = constant(value, limit=1 << 20)
            if array is None or np.any(array):
                return False
        elif node.op_type == "ConstantOfShape":
            fill: Any = attribute(node, "value")
            if fill is not None and np.any(fill.numpy()):
                return False
        elif node.op_type in _PASSING:
            pending += node.inputs if node.op_type == "Concat" else node.inputs[:1]
        else:
            return False
    return True

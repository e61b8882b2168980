"""`pack-weights`: weights that use at most 16 levels are stored in 4 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import Array, constant
from ..base import Pass
from ..cleanup.edit import Editor
from ..context import Context
from .opset import raise_opset

__all__ = ["PackWeights"]

_OPSET, _IR = 21, 10  # 4-bit integers are from here on


@dataclass(frozen=True)
class PackWeights(Pass):
    """DequantizeLinear(int8 levels in −8 … 7)  ⇒  DequantizeLinear(int4 levels): half the bytes, the same numbers

    Needs opset 21: the model is raised, or left with the reason.
    """

    name: ClassVar[str] = "pack-weights"

    def run(self, model: ir.Model, context: Context) -> None:
        found = {node.name for node in model.graph if _levels(node) is not None}
        if any(not _why_not(node) for node in model.graph if node.name in found):
            if reason := raise_opset(model, _OPSET):
                context.record.skip("model", reason)
                return
            model.ir_version = max(model.ir_version or 0, _IR)
        edit = Editor(model)
        for node in [n for n in model.graph if n.name in found]:
            if reason := _why_not(node):
                context.record.skip(node, reason)
            elif context.record.change(node, "int4"):
                _store(node, edit)


def _levels(node: ir.Node) -> Array | None:
    """The int8 levels of constant weights that a DequantizeLinear reads."""
    levels = constant(node.inputs[0]) if node.op_type == "DequantizeLinear" else None
    return levels if levels is not None and levels.dtype == np.int8 else None


def _why_not(node: ir.Node) -> str:
    levels = _levels(node)
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(1, np.int8)
    if levels is None or zero is None:
        return "its zero point is not constant"
    if levels.size and (levels.min() < -8 or levels.max() > 7):
        return "more than 16 levels"
    return "" if zero.min() >= -8 and zero.max() <= 7 else "its zero point is no level of 4 bits"


def _store(node: ir.Node, edit: Editor) -> None:
    int4 = ir.DataType.INT4.numpy()
    for index in (0, 2):
        old = node.inputs[index] if index < len(node.inputs) else None
        numbers = constant(old)
        if old is not None and numbers is not None:
            node.replace_input_with(index, edit.constant(f"{old.name}_int4", numbers.astype(int4)))
            if not old.uses() and not old.is_graph_output():
                edit.graph.initializers.pop(str(old.name))

"""Layer normalisation written out in elementary operators: LayerNormalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import attribute, constant, is_constant
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import Editor, become, integers

__all__ = ["FuseLayerNorm"]

_SINCE = 17


@dataclass(frozen=True)
class _Parts:
    x: ir.Value
    epsilon: float
    inner: tuple[ir.Value, ...]


@dataclass(frozen=True)
class FuseLayerNorm(Pass):
    """(x − mean(x)) / √(mean((x − mean(x))²) + ε)  ⇒  LayerNormalization(x, 1), over the last axis, from opset 17

    The scale and shift that follow are taken in by fold-affine.
    """

    name: ClassVar[str] = "fuse-layer-norm"

    def run(self, model: ir.Model, context: Context) -> None:
        candidates = [n for n in model.graph.all_nodes() if n.op_type == "Div" and _root(n) is not None]
        if not candidates:
            return
        shapes = infer(model)
        edit = Editor(model)
        for node in candidates:
            parts = _match(node, shapes)
            if parts is None:
                continue
            shape = shapes.shape(parts.x)
            size = shape[-1] if shape else None
            dtype = parts.x.dtype
            inside = {v.producer() for v in parts.inner} | {node}
            if shapes.version < _SINCE:
                context.record.skip(node, f"LayerNormalization needs opset {_SINCE}, the model has {shapes.version}")
            elif not isinstance(size, int) or dtype != ir.DataType.FLOAT:
                context.record.skip(node, "the last axis has no fixed size, or the type is not float32")
            elif any(v.is_graph_output() or any(u.node not in inside for u in v.uses()) for v in parts.inner):
                context.record.skip(node, "a part of the normalisation has other readers")
            elif context.record.change(node, f"over the last axis, ε = {parts.epsilon:g}"):
                scale = edit.constant(f"{node.outputs[0].name}.scale", np.ones(size, np.float32))
                shift = edit.constant(f"{node.outputs[0].name}.bias", np.zeros(size, np.float32))
                become(node, "LayerNormalization", [parts.x, scale, shift], {"axis": -1, "epsilon": parts.epsilon})


def _root(node: ir.Node) -> ir.Node | None:
    value = node.inputs[1]
    root = value.producer() if value is not None else None
    return root if root is not None and root.op_type == "Sqrt" else None


def _made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and not node.domain else None


def _match(node: ir.Node, shapes: Shapes) -> _Parts | None:
    root, centred = _root(node), node.inputs[0]
    subtract = _made_by(centred, "Sub")
    added = _made_by(root.inputs[0], "Add") if root is not None else None
    if root is None or subtract is None or added is None or centred is None:
        return None
    pairs = [(v, c) for v, c in (added.inputs, added.inputs[::-1]) if is_constant(c)]
    epsilon = constant(pairs[0][1], limit=1) if pairs else None
    variance = pairs[0][0] if pairs else None
    x, mean = subtract.inputs
    squares = _mean_of(variance, shapes)
    if epsilon is None or x is None or mean is None or variance is None or squares is None:
        return None
    if _mean_of(mean, shapes) is not x or not _is_square(squares, centred):
        return None
    inner = (centred, mean, squares, variance, added.outputs[0], root.outputs[0])
    return _Parts(x, float(epsilon.reshape(-1)[0]), inner)


def _mean_of(value: ir.Value | None, shapes: Shapes) -> ir.Value | None:
    """x of a mean over the last axis that keeps it."""
    node = _made_by(value, "ReduceMean")
    if node is None or not attribute(node, "keepdims", 1):
        return None
    axes, rank = integers(node, 1, "axes", shapes), shapes.rank(node.inputs[0])
    return node.inputs[0] if axes is not None and rank and [a % rank for a in axes] == [rank - 1] else None


def _is_square(value: ir.Value, of: ir.Value) -> bool:
    multiply, power = _made_by(value, "Mul"), _made_by(value, "Pow")
    if multiply is not None:
        return multiply.inputs[0] is of and multiply.inputs[1] is of
    exponent: Any = constant(power.inputs[1], limit=1) if power is not None and power.inputs[0] is of else None
    return exponent is not None and float(exponent.reshape(-1)[0]) == 2.0

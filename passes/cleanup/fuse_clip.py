"""Chains of Relu, Clip, Min and Max with constants: one Relu or one Clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import Array, attribute, constant, is_constant, only_consumer
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import Editor, become, standard_nodes

__all__ = ["FuseClip", "compose"]

Bounds = tuple[float, float]


@dataclass(frozen=True)
class FuseClip(Pass):
    """clip(clip(x, l₁, h₁), l₂, h₂)  ⇒  clip(x, clip(l₁, l₂, h₂), clip(h₁, l₂, h₂));  clip(x, 0, ∞)  ⇒  Relu(x)

    Relu is clip(x, 0, ∞); Max(x, l) and Min(x, h) with a constant number are clips too.
    """

    name: ClassVar[str] = "fuse-clip"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        edit = Editor(model)
        for node in standard_nodes(model):
            own = _bounds(node, shapes)
            if own is None:
                continue
            x, (low, high) = own
            before = x.producer()
            inner = _bounds(before, shapes) if before is not None and only_consumer(x) is node else None
            if inner is not None:
                x, (low, high) = inner[0], compose(inner[1], (low, high))
            elif node.op_type == "Relu" or (node.op_type == "Clip" and (low, high) != (0.0, np.inf)):
                continue
            if low == high or ((low != 0.0 or high != np.inf) and shapes.version < 11 and node.op_type != "Clip"):
                context.record.skip(node, "Clip takes its bounds as attributes before opset 11")
            elif context.record.change(node, f"clip to [{low:g}, {high:g}]"):
                _write(node, x, low, high, edit)


def compose(inner: Bounds, outer: Bounds) -> Bounds:
    """Bounds of the clip that equals the outer one after the inner one."""
    low, high = outer
    return min(max(inner[0], low), high), min(max(inner[1], low), high)


def _bounds(node: ir.Node, shapes: Shapes) -> tuple[ir.Value, Bounds] | None:
    """What a node clips and the bounds; None for another operator, unknown bounds or another type than float32/64."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Relu", "Clip", "Min", "Max"):
        return None
    if node.outputs[0].dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return None
    x = node.inputs[0]
    if node.op_type in ("Min", "Max"):
        if len(node.inputs) != 2:
            return None
        x, other = node.inputs if is_constant(node.inputs[1]) else (node.inputs[1], node.inputs[0])
        number = _scalar(constant(other, limit=1))
        if x is None or number is None or shapes.shape(x) is None or shapes.shape(x) != shapes.shape(node.outputs[0]):
            return None
        return x, ((number, np.inf) if node.op_type == "Max" else (-np.inf, number))
    if x is None or node.op_type == "Relu":
        return None if x is None else (x, (0.0, np.inf))
    bounds = []
    for i, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        given: Any = attribute(node, name)
        value = node.inputs[i] if i < len(node.inputs) else None
        number = float(given) if given is not None else default if value is None else _scalar(constant(value, limit=1))
        if number is None:
            return None
        bounds.append(number)
    return (x, (bounds[0], bounds[1])) if bounds[0] <= bounds[1] else None


def _scalar(array: Array | None) -> float | None:
    if array is None or array.size != 1 or np.isnan(array.reshape(-1)[0]):
        return None
    return float(array.reshape(-1)[0])


def _write(node: ir.Node, x: ir.Value, low: float, high: float, edit: Editor) -> None:
    if (low, high) == (0.0, np.inf):
        become(node, "Relu", [x])
        return
    if edit.version < 11:
        limits = {"min": low, "max": high}
        become(node, "Clip", [x], {k: float(v) for k, v in limits.items() if np.isfinite(v)})
        return
    dtype = node.outputs[0].dtype
    assert dtype is not None
    inputs: list[ir.Value | None] = [x]
    for name, bound in (("min", low), ("max", high)):
        stem = f"{node.outputs[0].name}.{name}"
        inputs.append(edit.constant(stem, np.asarray(bound, dtype.numpy())) if np.isfinite(bound) else None)
    while inputs[-1] is None:
        inputs.pop()
    become(node, "Clip", inputs)

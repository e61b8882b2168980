"""Operations that return their input: Identity, x·1, x+0, Cast to the same type, Reshape to the same shape, …"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import attribute, constant
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import bypass, bypass_hindrance, integers, standard_nodes

__all__ = ["RemoveNoOps"]


@dataclass(frozen=True)
class RemoveNoOps(Pass):
    """op(x) ⇒ x, where shapes (dynamic ones included), attributes and constants show that op changes nothing."""

    name: ClassVar[str] = "remove-no-ops"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        for node in standard_nodes(model):
            find = _SOURCES.get(node.op_type)
            if find is None or not node.inputs:
                continue
            source = find(node, shapes)
            if source is None or any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
                continue
            reason = bypass_hindrance(node.outputs[0], source)
            if reason:
                context.record.skip(node, reason)
            elif context.record.change(node, f"{node.op_type} returns its input"):
                bypass(node.outputs[0], source)


Find = Callable[[ir.Node, Shapes], "ir.Value | None"]


def _always(node: ir.Node, _shapes: Shapes) -> ir.Value | None:
    return node.inputs[0]


def _single(node: ir.Node, _shapes: Shapes) -> ir.Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _single_output(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    return _same_shape(node, shapes) if len(node.outputs) == 1 else None


def _same_shape(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    x, y = shapes.shape(node.inputs[0]), shapes.shape(node.outputs[0])
    return node.inputs[0] if x is not None and x == y else None


def _dropout(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is not None and shapes.numbers(training) != [0]:
        return None
    return None if shapes.version < 7 and not attribute(node, "is_test", 0) else node.inputs[0]


def _cast(node: ir.Node, _shapes: Shapes) -> ir.Value | None:
    x = node.inputs[0]
    wanted = attribute(node, "to") if node.op_type == "Cast" else getattr(node.inputs[1], "dtype", None)
    return x if x is not None and x.dtype is not None and x.dtype == wanted else None


def _transpose(node: ir.Node, _shapes: Shapes) -> ir.Value | None:
    perm: Any = attribute(node, "perm")
    return node.inputs[0] if perm is not None and list(perm) == sorted(perm) else None


def _slice(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    if len(node.inputs) > 4 and node.inputs[4] is not None and set(shapes.numbers(node.inputs[4]) or [0]) != {1}:
        return None
    return _same_shape(node, shapes)


def _pad(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    pads = integers(node, 1, "pads", shapes)
    return node.inputs[0] if pads is not None and not any(pads) else None


def _neutral(neutral: float, *, either_side: bool) -> Find:
    def find(node: ir.Node, shapes: Shapes) -> ir.Value | None:
        for x, c in ((0, 1), (1, 0)) if either_side else ((0, 1),):
            array = constant(node.inputs[c], limit=1 << 16)
            if array is None or array.dtype.kind not in "fiu" or not np.all(array == neutral):
                continue
            found = shapes.shape(node.inputs[x])
            if found is not None and found == shapes.shape(node.outputs[0]):
                return node.inputs[x]
        return None

    return find


def _clip(node: ir.Node, _shapes: Shapes) -> ir.Value | None:
    if any(name in node.attributes for name in ("min", "max")) or _shapes.version < 11:
        return None
    bounds = [constant(v, limit=1) if v is not None else None for v in node.inputs[1:]]
    for value, bound, open_end in zip(node.inputs[1:], bounds, (-np.inf, np.inf), strict=False):
        if value is not None and (bound is None or bound.dtype.kind != "f" or bound.item() != open_end):
            return None
    return node.inputs[0]


def _resize(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    if attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return None
    scales = constant(node.inputs[2], limit=16) if len(node.inputs) > 2 else None
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    if sizes is None and (scales is None or scales.size == 0 or not np.all(scales == 1)):
        return None
    return _same_shape(node, shapes)


def _pool(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    kernel: Any = attribute(node, "kernel_shape", ())
    pads: Any = attribute(node, "pads", ())
    if any(k != 1 for k in kernel) or any(pads):
        return None
    return _same_shape(node, shapes)


_SOURCES: dict[str, Find] = {
    "Add": _neutral(0, either_side=True),
    "AveragePool": _pool,
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "Concat": _single,
    "Div": _neutral(1, either_side=False),
    "Dropout": _dropout,
    "Expand": _same_shape,
    "Flatten": _same_shape,
    "Identity": _always,
    "Max": _single,
    "MaxPool": _pool,
    "Mean": _single,
    "Min": _single,
    "Mul": _neutral(1, either_side=True),
    "Pad": _pad,
    "Pow": _neutral(1, either_side=False),
    "ReduceMax": _same_shape,
    "ReduceMean": _same_shape,
    "ReduceMin": _same_shape,
    "ReduceProd": _same_shape,
    "ReduceSum": _same_shape,
    "Reshape": _same_shape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _single_output,
    "Squeeze": _same_shape,
    "Sub": _neutral(0, either_side=False),
    "Sum": _single,
    "Tile": _same_shape,
    "Transpose": _transpose,
    "Unsqueeze": _same_shape,
}

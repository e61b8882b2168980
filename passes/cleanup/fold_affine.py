"""Multiplication by and addition of constants into the weights of the operator before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import constant, is_constant, only_consumer
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .affine import Vector, absorb, channel_axis, per_channel
from .edit import Editor, become, standard_nodes
from .fold_bn import is_training

__all__ = ["FoldAffine"]


@dataclass(frozen=True)
class FoldAffine(Pass):
    """op(x, W, b)·a + c  ⇒  op(x, W·a, b·a + c), op: Conv, ConvTranspose, Gemm, MatMul and the normalisations

    a, c: constants with one number, or one per output channel; written as Mul, Div, Add or Sub.
    """

    name: ClassVar[str] = "fold-affine"

    def run(self, model: ir.Model, context: Context) -> None:
        edit = Editor(model)
        shapes = infer(model)
        for node in standard_nodes(model):
            if node.op_type not in ("Add", "Sub", "Mul", "Div"):
                continue
            x, c, on_right = _operands(node)
            producer = x.producer() if x is not None else None
            if x is None or c is None or producer is None:
                continue
            rank = shapes.rank(x)
            if rank is None or channel_axis(producer, rank) is None:
                continue
            reason = _fold(node, producer, x, c, on_right, shapes, edit, context)
            if reason:
                context.record.skip(node, reason)


def _operands(node: ir.Node) -> tuple[ir.Value | None, ir.Value | None, bool]:
    """The computed operand, the constant one, and whether the constant is on the right; no pair: (None, None, …)."""
    left, right = node.inputs
    if is_constant(right) and not is_constant(left):
        return left, right, True
    if is_constant(left) and not is_constant(right) and node.op_type != "Div":
        return right, left, False
    return None, None, True


def _fold(
    node: ir.Node,
    producer: ir.Node,
    x: ir.Value,
    c: ir.Value,
    on_right: bool,
    shapes: Shapes,
    edit: Editor,
    context: Context,
) -> str:
    shape = shapes.shape(x)
    assert shape is not None
    axis = channel_axis(producer, len(shape))
    assert axis is not None
    channels = shape[axis]
    if not isinstance(channels, int):
        return f"the number of channels of {producer.op_type} is not known"
    if producer.op_type == "BatchNormalization" and is_training(producer, shapes.version):
        return "the BatchNormalization before it is in training mode"
    if any(o.uses() or o.is_graph_output() for o in producer.outputs[1:]):
        return f"another output of the {producer.op_type} before it is read"
    if producer.graph is not node.graph:
        return f"the {producer.op_type} before it is in another graph, which may run less often"
    if only_consumer(x) is not node:
        return f"the {producer.op_type} before it has {len(list(x.uses()))} readers or is a graph output"
    array = constant(c, limit=channels)
    numbers = None if array is None else per_channel(array, len(shape), axis, channels)
    if numbers is None:
        return f"the constant is not one number per output channel of {producer.op_type}"
    if node.op_type == "Div" and not np.all(numbers):
        return "division by zero"
    a, b = _as_affine(node.op_type, numbers, on_right)
    absorbed = absorb(producer, a, b, shapes, edit)
    if isinstance(absorbed, str):
        return f"{producer.op_type}: {absorbed}"
    if context.record.change(node, f"into {producer.op_type} {producer.name or x.name}"):
        node.name = producer.name
        _carry_statistics(x, node.outputs[0], a, b)
        become(node, absorbed.op_type, absorbed.inputs, absorbed.attributes)
    return ""


def _carry_statistics(before: ir.Value, after: ir.Value, a: Vector | None, b: Vector | None) -> None:
    """Mean a·μ + b and deviation |a|·σ of the scaled value, where those of the value before are known."""
    known = metadata.get(before, metadata.STATISTICS)
    if known is None or after.metadata_props.get(metadata.STATISTICS) is not None:
        return
    factor, shift = (1.0 if a is None else a), (0.0 if b is None else b)
    mean, std = np.asarray(known["mean"]) * factor + shift, np.asarray(known["std"]) * np.abs(factor)
    metadata.put(after, metadata.STATISTICS, {**known, "mean": mean, "std": std})


def _as_affine(op_type: str, c: Vector, on_right: bool) -> tuple[Vector | None, Vector | None]:
    """The operation as a·x + b; None for a = 1 and b = 0."""
    if op_type == "Add":
        return None, c
    if op_type == "Sub":
        return (None, -c) if on_right else (np.full_like(c, -1.0), c)
    return (c if op_type == "Mul" else 1.0 / c), None

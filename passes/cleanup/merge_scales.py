"""Scalar factors around matrix products: one of them, inside a weight where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import constant, is_constant, only_consumer
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import Editor, become, bypass, discard, standard_nodes

__all__ = ["MergeScales"]

_MOVES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"}
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class MergeScales(Pass):
    """(s·x) @ (t·y)  ⇒  (s·t·x) @ y;  s·move(x @ W + b)  ⇒  move(x @ sW + sb);  (s·x ⊙ y) @ W  ⇒  (x ⊙ y) @ sW

    s, t: constant numbers. move: reshapes and transposes. Narrow floats are left alone: s·t·x may leave their range.
    """

    name: ClassVar[str] = "merge-scales"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        edit = Editor(model)
        for node in standard_nodes(model):
            if node.op_type == "MatMul" and node.outputs[0].dtype in _FLOATS:
                _merge_operands(node, shapes, edit, context)
        for node in standard_nodes(model):
            scaled = _scaled(node.outputs[0], shapes) if node.op_type in ("Mul", "Div") else None
            if scaled is not None:
                _push(node, *scaled, shapes, edit, context)


def _scaled(value: ir.Value | None, shapes: Shapes) -> tuple[ir.Value, float] | None:
    """x and s of a value s·x, where s is a finite constant number other than 0."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in ("Mul", "Div") or node.domain not in ("", "ai.onnx"):
        return None
    for x, c in (node.inputs, node.inputs[::-1])[: 1 if node.op_type == "Div" else 2]:
        array = constant(c, limit=1) if x is not None and not is_constant(x) else None
        if x is None or array is None or array.size != 1 or node.outputs[0].dtype not in _FLOATS:
            continue
        number = float(array.reshape(-1)[0])
        same = shapes.shape(x) is not None and shapes.shape(x) == shapes.shape(node.outputs[0])
        if same and np.isfinite(number) and number != 0.0:
            return x, number if node.op_type == "Mul" else 1.0 / number
    return None


def _merge_operands(node: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    sides = [_scaled(v, shapes) for v in node.inputs]
    left, right = sides
    if left is None or right is None:
        return
    if any(v is None or only_consumer(v) is not node for v in node.inputs) or node.inputs[0] is node.inputs[1]:
        context.record.skip(node, "a scaled operand has other readers")
        return
    factor = left[1] * right[1]
    scale = node.inputs[0].producer() if node.inputs[0] is not None else None
    assert scale is not None and scale.outputs[0].dtype is not None
    if context.record.change(node, f"one factor {factor:g} for both operands"):
        number = edit.constant(f"{scale.outputs[0].name}.factor", np.asarray(factor, scale.outputs[0].dtype.numpy()))
        become(scale, "Mul", [left[0], number])
        become(node, "MatMul", [node.inputs[0], right[0]])


def _push(node: ir.Node, x: ir.Value, factor: float, shapes: Shapes, edit: Editor, context: Context) -> None:
    """Into the weights of the product before it, or of the product after it."""
    targets = _linear_before(x, node)
    passed = [value for value, _ in _through_moves(x, node)]
    if not targets:
        targets, passed = _linear_after(node, shapes)
    if not targets:
        return
    if context.record.change(node, f"factor {factor:g} into the weights of {targets[-1][0].name}"):
        for user, index in targets:
            value = user.inputs[index]
            assert value is not None and value.const_value is not None and value.dtype is not None
            user.replace_input_with(index, _times(value, factor, edit))
            discard(value)
        for value in passed:  # they hold other numbers now
            value.metadata_props.pop(metadata.STATISTICS, None)
        bypass(node.outputs[0], x)


def _times(value: ir.Value, factor: float, edit: Editor) -> ir.Value:
    tensor = value.const_value
    assert tensor is not None
    shape = [int(d) for d in tensor.shape]  # type: ignore[arg-type]
    return edit.computed(
        str(value.name), tensor.dtype, shape, lambda: tensor.numpy() * np.asarray(factor, tensor.dtype.numpy())
    )


def _linear_before(x: ir.Value, reader: ir.Node) -> list[tuple[ir.Node, int]]:
    """The constant inputs (node, index) that scale x, when it is x @ W, x @ W + b or Gemm, moved about."""
    for value, user in _through_moves(x, reader):
        node = value.producer()
        if (
            node is None
            or only_consumer(value) is not user
            or node.graph is not user.graph
            or node.domain not in ("", "ai.onnx")
        ):
            return []
        if node.op_type == "MatMul":
            return [(node, 1)] if is_constant(node.inputs[1]) else []
        if node.op_type == "Gemm":
            return [(node, i) for i, v in enumerate(node.inputs) if i and v] if _constants(node) else []
        if node.op_type == "Add":
            return _product_and_bias(node)
    return []


def _constants(gemm: ir.Node) -> bool:
    return all(is_constant(v) for v in gemm.inputs[1:] if v is not None)


def _product_and_bias(add: ir.Node) -> list[tuple[ir.Node, int]]:
    for product, bias in ((0, 1), (1, 0)):
        value = add.inputs[product]
        node = value.producer() if value is not None else None
        if value is None or node is None or node.op_type != "MatMul" or not is_constant(add.inputs[bias]):
            continue
        if is_constant(node.inputs[1]) and only_consumer(value) is add:
            return [(add, bias), (node, 1)]
    return []


def _through_moves(x: ir.Value, reader: ir.Node) -> Iterator[tuple[ir.Value, ir.Node]]:
    """x and what it was before each reshape or transpose, with the node that reads it."""
    value: ir.Value | None = x
    while value is not None:
        yield value, reader
        node = value.producer()
        if node is None or node.op_type not in _MOVES:
            return
        value, reader = node.inputs[0], node


def _linear_after(node: ir.Node, shapes: Shapes) -> tuple[list[tuple[ir.Node, int]], list[ir.Value]]:
    """The weight of the matrix product that reads s·x, at once or times a value of its shape; the values between."""
    value = node.outputs[0]
    passed: list[ir.Value] = []
    for _ in range(8):
        reader = only_consumer(value)
        if reader is None or reader.domain not in ("", "ai.onnx") or reader.graph is not node.graph:
            break
        if reader.op_type in ("MatMul", "Gemm"):
            usable = reader.inputs[0] is value and is_constant(reader.inputs[1])
            return ([(reader, 1)] if usable else []), passed
        same = shapes.shape(reader.outputs[0]) == shapes.shape(value)
        if not (reader.op_type in _MOVES or (reader.op_type == "Mul" and same)):
            break
        value = reader.outputs[0]
        passed.append(value)
    return [], []

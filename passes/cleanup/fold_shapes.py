"""Arithmetic on shapes, dynamic ones too: what is a number becomes a constant, what is computed twice is shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.dimension import Expression
from ...ir.graph import Array, is_constant
from ...ir.shape_question import Contents, Shape
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import Editor, become, bypass, standard_nodes, subgraphs

__all__ = ["FoldShapes", "reshape_target"]

_COPY, _INFER = 0, -1  # the two placeholders of Reshape
_DTYPES: dict[ir.DataType, type[np.generic]] = {
    ir.DataType.INT64: np.int64,
    ir.DataType.INT32: np.int32,
    ir.DataType.BOOL: np.bool_,
}


@dataclass(frozen=True)
class FoldShapes(Pass):
    """Shape ▸ Gather ▸ Unsqueeze ▸ Concat ▸ Reshape ⇒ Reshape(x, const): integer values whose contents inference finds.

    1. contents all numbers: the value becomes an initialiser;
    2. a Reshape whose result differs from its input in at most one unknown size: a constant target with 0 and −1;
    3. two values with the same contents in terms of the inputs' sizes: the later readers read the earlier one.
    """

    name: ClassVar[str] = "fold-shapes"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        edit = Editor(model)
        for node in standard_nodes(model):
            _fold_numbers(node, shapes, edit, context)
            if node.graph is not None and node.op_type == "Reshape":
                _fold_target(node, shapes, edit, context)
        _share(model.graph, {}, shapes, context)


def _fold_numbers(node: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    for output in node.outputs:
        dtype = _DTYPES.get(output.dtype or ir.DataType.UNDEFINED)
        contents = None if dtype is None else shapes.contents(output)
        if (
            dtype is None
            or contents is None
            or node.op_type == "Constant"
            or any(isinstance(e, Expression) for e in contents.flat)
        ):
            continue
        if not output.uses():
            continue
        if output.is_graph_output():
            context.record.skip(node, "a graph output must be computed by a node of its graph")
            continue
        array = _as_array(contents, dtype)
        if array is not None and context.record.change(node, f"always {_short(contents)}"):
            bypass(output, edit.constant(f"{output.name}", array))


def _as_array(contents: Contents, dtype: type[np.generic]) -> Array | None:
    try:
        return contents.astype(np.int64).astype(dtype)
    except OverflowError:
        return None


def _fold_target(node: ir.Node, shapes: Shapes, edit: Editor, context: Context) -> None:
    if is_constant(node.inputs[1]) or "shape" in node.attributes:
        return
    x, y = shapes.shape(node.inputs[0]), shapes.shape(node.outputs[0])
    target = None if x is None or y is None else reshape_target(x, y)
    if target is None:
        context.record.skip(node, "more than one size of the result is not known from the input")
    elif context.record.change(node, f"target {target}"):
        become(node, "Reshape", [node.inputs[0], edit.constant(f"{node.outputs[0].name}.shape", target)])


def reshape_target(x: Shape, y: Shape) -> list[int] | None:
    """A constant Reshape target that turns shape x into y: 0 copies a size, −1 stands for the one that is left."""
    target: list[int] = []
    for i, size in enumerate(y):
        if isinstance(size, int):
            if size == 0:
                return None  # a literal 0 would read as "copy"
            target.append(size)
        else:
            target.append(_COPY if i < len(x) and x[i] == size else _INFER)
    return target if target.count(_INFER) <= 1 else None


def _share(graph: ir.Graph, seen: dict[object, ir.Value], shapes: Shapes, context: Context) -> None:
    """Reuse, within a graph and from the graphs around it, the first value with the same symbolic contents."""
    known = dict(seen) if seen else seen
    for node in list(graph):
        if node.graph is None:
            continue
        for attr in node.attributes.values():
            for inner in subgraphs(attr):
                _share(inner, dict(known), shapes, context)
        output = node.outputs[0] if len(node.outputs) == 1 else None
        contents = None if output is None or output.dtype not in _DTYPES else shapes.contents(output)
        if output is None or contents is None or contents.size == 0 or node.op_type == "Constant":
            continue
        if not any(isinstance(e, Expression) for e in contents.flat):
            continue
        key = (output.dtype, contents.shape, tuple(contents.flat))
        first = known.setdefault(key, output)
        repeated = first is not output and output.uses() and not output.is_graph_output()
        if repeated and context.record.change(node, f"the same sizes as {first.name}"):
            bypass(output, first)


def _short(contents: Contents) -> str:
    text = str(contents.tolist())
    return text if len(text) <= 60 else text[:57] + "..."

"""Models in floats of 16 bits in float32, which integers replace and every CPU computes in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import Array, static_shape
from ...ir.shapes import infer
from ..base import Pass
from ..context import Context
from .edit import Editor

__all__ = ["WidenFloats"]

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_TYPES = ("to", "dtype", "output_dtype")  # attributes that state a type


@dataclass(frozen=True)
class WidenFloats(Pass):
    """f(x) in float16 or bfloat16  ⇒  f(x) in float32

    Inputs and outputs of the model keep their types, behind casts. Roundings to 16 bits inside are left out, so that
    results come closer to those of the float32 model that the file was made from.
    """

    name: ClassVar[str] = "widen-floats"

    def run(self, model: ir.Model, context: Context) -> None:
        infer(model)
        narrow = [node for node in model.graph.all_nodes() if any(map(_is_narrow, (*node.inputs, *node.outputs)))]
        stored = [v for graph in model.graphs() for v in graph.initializers.values() if _is_narrow(v)]
        if not narrow and not stored:
            return
        if context.record.change("model", f"{len(narrow)} nodes and {len(stored)} constants in float32"):
            outputs = [value for value in model.graph.outputs if _is_narrow(value)]
            kinds = [value.dtype for value in outputs]
            for node in narrow:
                _state_float(node)
            for value in [*stored, *_made(model)]:
                _widen(value)
            _keep_interface(model, outputs, kinds)
            infer(model)


def _is_narrow(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in _NARROW


def _made(model: ir.Model) -> Iterator[ir.Value]:
    """Narrow results of nodes, and arguments of subgraphs."""
    for graph in model.graphs():
        given = () if graph is model.graph else graph.inputs
        yield from (v for v in (*given, *(v for node in graph for v in node.outputs)) if _is_narrow(v))


def _state_float(node: ir.Node) -> None:
    """Types and tensors that attributes hold."""
    for name, attr in list(node.attributes.items()):
        if name in _TYPES and attr.type == ir.AttributeType.INT and attr.value in [int(kind) for kind in _NARROW]:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
        elif attr.type == ir.AttributeType.TENSOR and attr.value.dtype in _NARROW:
            node.attributes[name] = ir.AttrTensor(name, ir.Tensor(attr.value.numpy().astype(np.float32)))


def _widen(value: ir.Value) -> None:
    value.type = ir.TensorType(ir.DataType.FLOAT)  # types are shared between clones
    tensor = value.const_value
    if tensor is None or tensor.dtype not in _NARROW:
        return

    def compute() -> ir.Tensor[Array]:
        return ir.Tensor(tensor.numpy().astype(np.float32))

    shape = ir.Shape(static_shape(value) or ())
    value.const_value = ir.LazyTensor(compute, dtype=ir.DataType.FLOAT, shape=shape, name=value.name)


def _keep_interface(model: ir.Model, outputs: list[ir.Value], kinds: list[ir.DataType | None]) -> None:
    """Casts behind narrow inputs and ahead of outputs that were narrow, which keep their names."""
    edit, graph = Editor(model), model.graph
    for value in graph.inputs:
        if _is_narrow(value):
            readers = [(use.node, use.idx) for use in value.uses()]
            wide = _cast(value, ir.DataType.FLOAT, edit.name(f"{value.name}_float"))
            graph.insert_before(next(iter(graph)), wide)
            for node, position in readers:
                node.replace_input_with(position, wide.outputs[0])
    for value, kind in zip(outputs, kinds, strict=True):
        if value.is_graph_input() or kind is None:
            continue
        name = str(value.name)
        value.name = edit.name(f"{name}_float")
        narrow = _cast(value, kind, name)
        graph.append(narrow)
        graph.outputs[:] = [narrow.outputs[0] if found is value else found for found in graph.outputs]


def _cast(value: ir.Value, kind: ir.DataType, name: str) -> ir.Node:
    output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind))
    return ir.node("Cast", [value], attributes={"to": int(kind)}, outputs=[output], name=name)

"""A model of bfloat16 operators as float32 ones between roundings, which ONNX Runtime can execute on a CPU."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["in_float32", "uses_bfloat16"]


def uses_bfloat16(model: ir.Model) -> bool:
    """Whether an operator of the main graph computes bfloat16."""
    return any(_computes(node) for node in model.graph)


def in_float32(model: ir.Model) -> ir.Model:
    """A copy with y = f(x) in bfloat16 as y = bfloat16(f(float32(x))); names of values stay."""
    copy = model.clone()
    for node in [node for node in copy.graph if _computes(node)]:
        for position, value in enumerate(node.inputs):
            if value is not None and value.dtype == ir.DataType.BFLOAT16:
                node.replace_input_with(position, _cast(copy.graph, value, ir.DataType.FLOAT, before=node))
        for value in node.outputs:
            if value.dtype == ir.DataType.BFLOAT16:
                _round(copy.graph, node, value)
    return copy


def _computes(node: ir.Node) -> bool:
    if node.op_type in ("Cast", "Identity"):
        return False
    return any(v is not None and v.dtype == ir.DataType.BFLOAT16 for v in (*node.inputs, *node.outputs))


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """The result in float32 under another name; its rounding takes its place and name."""
    readers, name = [(use.node, use.idx) for use in value.uses()], str(value.name)
    value.name, value.type = f"{name}.float32", ir.TensorType(ir.DataType.FLOAT)
    rounded = _cast(graph, value, ir.DataType.BFLOAT16, after=node)
    rounded.name = name
    for reader, position in readers:
        reader.replace_input_with(position, rounded)
    graph.outputs[:] = [rounded if output is value else output for output in graph.outputs]


def _cast(
    graph: ir.Graph, value: ir.Value, kind: ir.DataType, before: ir.Node | None = None, after: ir.Node | None = None
) -> ir.Value:
    output = ir.Value(shape=value.shape, type=ir.TensorType(kind))
    cast = ir.node("Cast", [value], attributes={"to": int(kind)}, outputs=[output])
    if before is not None:
        graph.insert_before(before, cast)
    elif after is not None:
        graph.insert_after(after, cast)
    return output

"""Operators that TVM's import lacks and that ONNX defines by others, in those others."""

from __future__ import annotations

import onnx_ir as ir

from ...ir.names import Names, of_values

__all__ = ["expand"]

_COMPOSED = {"Attention"}


def expand(model: ir.Model) -> bool:
    """Put the bodies that the specification gives in the places of such nodes, if any; types must be inferred."""
    graph = model.graph
    nodes = [node for node in graph if node.op_type in _COMPOSED and node.domain in ("", "ai.onnx")]
    names = Names(of_values(graph)) if nodes else None
    for node in nodes:
        assert names is not None
        body = _body(node, model.opset_imports.get("", 0), model.ir_version)
        given = [value for value in node.inputs if value is not None]
        for inner, outer in zip(list(body.inputs), given, strict=True):
            ir.convenience.replace_all_uses_with(inner, outer)
        results = list(body.outputs)
        body.outputs.clear()
        for made in list(body):
            body.remove(made)
            for value in made.outputs:
                value.name = names.free(f"{node.name}.{value.name}")
            graph.insert_before(node, made)
        used = [value for value in node.outputs if value.name]
        for old, new in zip(used, results, strict=True):
            new.shape, name = old.shape, old.name
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            old.name, new.name = names.free(f"{name}.old"), name
        graph.remove(node, safe=True)
    return bool(nodes)


def _body(node: ir.Node, version: int, ir_version: int) -> ir.Graph:
    """A node as a graph of what the specification makes it of."""
    from onnx import helper, inliner

    inputs = [ir.to_proto(value) for value in node.inputs if value is not None]
    outputs = [ir.to_proto(value) for value in node.outputs if value.name]
    graph = helper.make_graph([ir.to_proto(node)], "body", inputs, outputs)
    opsets = [helper.make_opsetid("", version)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    made = inliner.inline_selected_functions(proto, [("", node.op_type)], exclude=False, inline_schema_functions=True)
    return ir.serde.deserialize_model(made).graph

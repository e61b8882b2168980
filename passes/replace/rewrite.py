"""Put a replacement in the place of a layer, or into a small model of its own to be costed and trained."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir import metadata, shapes
from ...ir.graph import initializer, replace_value
from ...ir.layers import Layer
from ...ir.names import Names, of_values
from .factory import Piece

__all__ = ["alone", "insert"]


def insert(graph: ir.Graph, layer: Layer, pieces: tuple[Piece, ...]) -> list[ir.Value]:
    """Replace a layer by the pieces; its result keeps name, type and shape. Returns the new weights, in order."""
    result, source = layer.output, layer.node.inputs[0]
    assert source is not None
    producer = result.producer()
    assert producer is not None
    stem, names = str(result.name), Names([*of_values(graph), *(n.name for n in graph.all_nodes())])
    nodes, weights = _chain(graph, source, pieces, stem, names)
    last = nodes[-1].outputs[0]
    last.type, last.shape = result.type, result.shape
    last.metadata_props.update(result.metadata_props)
    metadata.put(last, metadata.REPLACED, {"input": str(source.name), "output": stem})
    graph.insert_after(producer, nodes)
    result.name = names.free(f"{stem}_replaced")
    replace_value(result, last)
    last.name = stem
    dead = [producer] if producer is layer.node else [producer, layer.node]
    old = [v for node in dead for v in node.inputs if v is not None and v.is_initializer()]
    for node in dead:
        graph.remove(node, safe=True)
    for value in old:
        if not value.uses() and value.name in graph.initializers:
            del graph.initializers[str(value.name)]
    return weights


def alone(layer: Layer, pieces: tuple[Piece, ...] | None) -> ir.Model:
    """A model of the pieces, or of the layer itself for None, between values like the layer's input and output."""
    source, result = layer.node.inputs[0], layer.output
    assert source is not None
    x = ir.Value(name="x", shape=source.shape, type=source.type)
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 20}, name="replacement")
    if pieces is None:
        pieces = _itself(layer)
    nodes, _ = _chain(graph, x, pieces, "y", Names(["x", "y"]))
    graph.extend(nodes)
    last = nodes[-1].outputs[0]
    last.name, last.type, last.shape = "y", result.type, result.shape
    graph.outputs.append(last)
    model = ir.Model(graph, ir_version=10)
    shapes.infer(model)
    return model


def _itself(layer: Layer) -> tuple[Piece, ...]:
    weights = tuple(
        np.asarray(v.const_value.numpy()) for v in layer.node.inputs[1:] if v is not None and v.const_value is not None
    )
    attributes = {name: a.value for name, a in layer.node.attributes.items()}
    first = Piece(layer.node.op_type, weights, attributes)
    if layer.output.producer() is layer.node:
        return (first,)
    return (first, Piece("Add", (layer.offset().astype(np.float32),)))


def _chain(
    graph: ir.Graph, source: ir.Value, pieces: tuple[Piece, ...], stem: str, names: Names
) -> tuple[list[ir.Node], list[ir.Value]]:
    nodes, weights, value = [], [], source
    for number, piece in enumerate(pieces):
        made = [
            initializer(graph, names.free(f"{stem}_{number}_{'weight' if i == 0 else 'bias'}"), np.asarray(w))
            for i, w in enumerate(piece.weights)
        ]
        attributes = [_attribute(name, v) for name, v in piece.attributes.items()]
        node = ir.Node("", piece.op, [value, *made], attributes, num_outputs=1, name=names.free(f"{stem}_{number}"))
        value = node.outputs[0]
        value.name, value.type = names.free(f"{stem}_{number}_out"), source.type
        nodes.append(node)
        weights += made
    return nodes, weights


def _attribute(name: str, value: object) -> ir.Attr:
    return ir.convenience.convert_attributes({name: list(value) if isinstance(value, tuple) else value})[0]

"""Small questions and edits on an onnx_ir graph that every other module asks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .names import Names, of_values

__all__ = [
    "all_nodes",
    "attribute",
    "constant",
    "forget_removed_readers",
    "fresh_name",
    "initializer",
    "is_constant",
    "only_consumer",
    "remove_node",
    "replace_value",
    "static_shape",
    "weight_bytes",
]

Array = npt.NDArray[np.generic]


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the main graph and of the subgraphs inside its nodes, outer before inner."""
    return model.graph.all_nodes()


def is_constant(value: ir.Value | None) -> bool:
    """True for a value whose contents are known: an initialiser that is not also an input, or a Constant's output."""
    if value is None or value.const_value is None:
        return False
    return not value.is_graph_input()


def constant(value: ir.Value | None, limit: int | None = None) -> Array | None:
    """The contents of a constant value; None when it is not one, or holds more than `limit` elements."""
    if value is None or not is_constant(value):
        return None
    tensor = value.const_value
    assert tensor is not None
    if limit is not None and tensor.size > limit:
        return None
    return tensor.numpy()


def attribute(node: ir.Node, name: str, default: object = None) -> object:
    """The plain Python value of an attribute, or the default."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape when every dimension is a known number, else None."""
    if value is None or value.shape is None:
        return None
    dims = tuple(value.shape)
    return dims if all(isinstance(d, int) for d in dims) else None  # type: ignore[return-value]


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The single node that reads the value, once, when it is not a graph output; else None."""
    if value.is_graph_output():
        return None
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 else None


def fresh_name(graph: ir.Graph, stem: str) -> str:
    """A value name that is free in the graph; for many, keep `Names`."""
    return Names(of_values(graph)).free(stem)


def initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """Register a new initialiser and return its value; the name must be free."""
    value = ir.Value(name=name, const_value=ir.Tensor(np.asarray(array, order="C"), name=name))
    value.dtype = ir.DataType.from_numpy(array.dtype)
    value.shape = ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Make every reader of `old` read `new`; a graph output keeps its name."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def remove_node(node: ir.Node) -> None:
    """Remove a node whose outputs nobody reads, with what its subgraphs read."""
    graph = node.graph
    assert graph is not None
    graph.remove(node, safe=True)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            for inner in attribute.value.all_nodes():
                _forget_inputs(inner)


def forget_removed_readers(model: ir.Model) -> None:
    """Take nodes that are in no graph of the model off the readers of its values; libraries leave them there."""
    outermost = (model.graph, *(function.graph for function in model.functions.values()))
    live = {id(node) for graph in outermost for node in graph.all_nodes()}
    for graph in (g for outer in outermost for g in (outer, *outer.subgraphs())):
        produced = (value for node in graph for value in node.outputs)
        for value in (*graph.inputs, *graph.initializers.values(), *produced):
            for reader in {id(use.node): use.node for use in value.uses()}.values():
                if id(reader) not in live:
                    _forget_inputs(reader)


def _forget_inputs(node: ir.Node) -> None:
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initialisers, subgraphs and functions included; nothing is loaded."""
    tensors = (v.const_value for graph in model.graphs() for v in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)

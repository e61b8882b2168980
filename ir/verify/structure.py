"""Rules on the graph itself: names, definitions, order, operators."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import onnx
import onnx_ir as ir

__all__ = ["Finding", "defined", "initializers", "names", "operators"]

Finding = tuple[str, str]  # where, what

# domains whose operators ONNX has no schemas of; ONNX Runtime provides them
_CONTRIBUTED = ("com.microsoft", "com.ms.internal", "ai.onnx.contrib")


def where(node: ir.Node) -> str:
    """A node as messages name it."""
    name = node.name or next((v.name for v in node.outputs if v.name), "")
    return f"node {name!r} ({node.op_type})"


def bodies(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph and the body of every function."""
    yield model.graph
    yield from (function.graph for function in model.functions.values())


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.value
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.value


def names(model: ir.Model) -> Iterator[Finding]:
    for graph in (*model.graphs(), *(f.graph for f in model.functions.values())):
        taken: dict[str, ir.Value] = {}
        produced = (v for node in graph for v in node.outputs if v.name != "")
        for value in (*graph.inputs, *graph.initializers.values(), *produced):
            if not value.name:
                producer = value.producer()
                place = where(producer) if producer is not None else f"graph {graph.name!r}"
                yield place, "a value has no name"
            elif taken.setdefault(value.name, value) is not value:
                yield f"value {value.name!r}", f"two values of one graph are named {value.name!r}"


def defined(model: ir.Model) -> Iterator[Finding]:
    for graph in bodies(model):
        yield from _definitions(graph, set())


def _definitions(graph: ir.Graph, outer: set[int]) -> Iterator[Finding]:
    """Walk nodes in order; `outer` holds the values that are there already, and is left as it was."""
    mine = {id(v) for v in (*graph.inputs, *graph.initializers.values())} - outer
    outer |= mine
    for node in graph:
        for value in node.inputs:
            if value is not None and id(value) not in outer:
                yield where(node), _undefined(value, graph)
        for inner in subgraphs(node):
            yield from _definitions(inner, outer)
        results = {id(v) for v in node.outputs} - outer
        mine |= results
        outer |= results
    for value in graph.outputs:
        if id(value) not in outer:
            yield f"output {value.name!r}", f"nothing computes the graph output {value.name!r}"
    outer -= mine


def _undefined(value: ir.Value, graph: ir.Graph) -> str:
    producer = value.producer()
    if producer is None:
        return f"the input {value.name!r} is defined nowhere"
    if producer.graph is None:
        return f"the input {value.name!r} is computed by a node that was removed"
    if producer.graph is not graph:
        return f"the input {value.name!r} belongs to a graph it cannot see, or comes too late in one around it"
    what = "the graph has a cycle" if _cyclic(graph) else "the nodes are not in topological order"
    return f"the input {value.name!r} is computed after the node that reads it: {what}"


def _cyclic(graph: ir.Graph) -> bool:
    """Kahn's algorithm over the nodes of one graph; reads inside subgraphs count for the node that holds them."""
    waiting: dict[ir.Node, int] = dict.fromkeys(graph, 0)
    readers: dict[ir.Node, list[ir.Node]] = {node: [] for node in waiting}
    for node in waiting:
        inside = [n for inner in subgraphs(node) for n in inner.all_nodes()]
        read = {v.producer() for n in (node, *inside) for v in n.inputs if v is not None}
        for producer in read:
            if producer is not None and producer in readers:
                readers[producer].append(node)
                waiting[node] += 1
    ready = [node for node, count in waiting.items() if not count]
    done = 0
    while ready:
        done += 1
        for node in readers[ready.pop()]:
            waiting[node] -= 1
            if not waiting[node]:
                ready.append(node)
    return done < len(waiting)


def initializers(model: ir.Model) -> Iterator[Finding]:
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None:
                yield f"initialiser {name!r}", "the initialiser has no contents"
            elif value.dtype is not None and value.dtype != tensor.dtype:
                yield (
                    f"initialiser {name!r}",
                    f"the initialiser is declared {value.dtype.name} and holds {tensor.dtype.name}",
                )
            elif value.shape is not None and not _fits(value.shape, tensor.shape):
                yield f"initialiser {name!r}", f"the initialiser is declared {value.shape} and holds {tensor.shape}"


def _fits(declared: ir.ShapeProtocol, actual: ir.ShapeProtocol) -> bool:
    return len(declared) == len(actual) and all(
        not isinstance(d, int) or d == a for d, a in zip(declared, actual, strict=True)
    )


def operators(model: ir.Model) -> Iterator[Finding]:
    for graph in bodies(model):
        imports = graph.opset_imports
        for node in graph.all_nodes():
            if node.op_identifier() in model.functions:
                continue
            version = imports.get(node.domain, imports.get("ai.onnx") if not node.domain else None)
            if problem := _problem(node.domain, node.op_type, version):
                yield where(node), problem


@cache
def _problem(domain: str, op_type: str, version: int | None) -> str:
    """Why an operator cannot be used, or an empty string."""
    label = f"{domain}.{op_type}" if domain else op_type
    if version is None:
        return f"the model imports no opset of the domain {domain!r} that {label} needs"
    if domain not in _domains():
        known = domain.startswith(_CONTRIBUTED)
        return "" if known else f"the operator domain {domain!r} of {label} is unknown, and no function defines it"
    newest = onnx.defs.onnx_opset_version()
    if not domain and version > newest:
        return f"opset {version} is newer than {newest}, the newest this version of onnx knows"
    if not onnx.defs.has(op_type, version, domain):
        return f"there is no operator {label} in opset {version}"
    if onnx.defs.get_schema(op_type, version, domain).deprecated:
        return f"the operator {label} does not exist any more in opset {version}"
    return ""


@cache
def _domains() -> frozenset[str]:
    return frozenset(schema.domain for schema in onnx.defs.get_all_schemas())

"""Edits on a graph that keep names unique, outputs named as they were, and nothing unused behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import Array
from ...ir.names import Names, of_values
from ...ir.shapes import Shapes

__all__ = ["Editor", "become", "bypass", "bypass_hindrance", "discard", "integers", "standard_nodes", "subgraphs"]

_EAGER = 1 << 20  # bytes; a larger tensor is computed when it is read, so that folding never holds the model in memory
# operators whose axes are an input, and since which opset
_AXES_INPUT_SINCE = {"Squeeze": 13, "Unsqueeze": 13, "ReduceSum": 13}
_REDUCE_AXES_INPUT_SINCE = 18


class Editor:
    """Adds constants and nodes to one model under names that are free, looked up once for many edits."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.version = model.graph.opset_imports.get("", 0)
        self._names: Names | None = None
        self._small: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def name(self, stem: str) -> str:
        """A value name that is free in every graph of the model."""
        if self._names is None:
            self._names = Names(of_values(self.graph))
        return self._names.free(stem)

    def constant(self, stem: str, array: Array | Sequence[int]) -> ir.Value:
        """An initialiser of the main graph; small equal ones are shared."""
        tensor = np.asarray(array, np.int64) if not isinstance(array, np.ndarray) else np.asarray(array, order="C")
        key = (tensor.dtype.str, tensor.shape, tensor.tobytes()) if tensor.size <= 64 else None
        known = self._small.get(key) if key is not None else None
        if known is not None and known.is_initializer():
            return known
        value = self._register(stem, ir.Tensor(tensor))
        if key is not None:
            self._small[key] = value
        return value

    def computed(self, stem: str, dtype: ir.DataType, shape: Sequence[int], compute: Callable[[], Array]) -> ir.Value:
        """An initialiser computed from other constants: now when it is small, whenever it is read when it is large."""
        if int(np.prod(shape, dtype=np.int64)) * dtype.itemsize <= _EAGER:
            return self._register(stem, ir.Tensor(np.asarray(compute(), order="C")))
        lazy = ir.LazyTensor(lambda: ir.Tensor(np.asarray(compute(), order="C")), dtype=dtype, shape=ir.Shape(shape))
        return self._register(stem, lazy)

    def _register(self, stem: str, tensor: ir.Tensor[Any] | ir.LazyTensor) -> ir.Value:
        value = ir.Value(name=self.name(stem), const_value=tensor)
        tensor.name = value.name
        value.dtype, value.shape = tensor.dtype, ir.Shape(tensor.shape)
        self.graph.register_initializer(value)
        return value

    def insert(
        self, before: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any], stem: str
    ) -> ir.Value:
        """A new single-output node ahead of another; returns its output."""
        output = ir.Value(name=self.name(stem))
        made = ir.node(op_type, inputs, attributes=attributes, outputs=[output])
        made.name = output.name
        assert before.graph is not None
        before.graph.insert_before(before, made)
        return output

    def axes(self, op_type: str, axes: Sequence[int], stem: str) -> tuple[list[ir.Value], dict[str, Any]]:
        """Axes the way this opset wants them: as a second input or as an attribute."""
        if self.version >= _AXES_INPUT_SINCE.get(op_type, _REDUCE_AXES_INPUT_SINCE):
            return [self.constant(f"{stem}.axes", list(axes))], {}
        return [], {"axes": list(axes)}


def standard_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """The nodes of ONNX's own domain, outer graphs first; one that is removed before its turn does not come."""
    for node in list(model.graph.all_nodes()):
        if node.graph is not None and node.domain in ("", "ai.onnx"):
            yield node


def subgraphs(attr: ir.Attr) -> Sequence[ir.Graph]:
    """The graphs an attribute holds: the branches of an If, the body of a Loop."""
    if attr.type == ir.AttributeType.GRAPH:
        return [attr.as_graph()]
    return list(attr.as_graphs()) if attr.type == ir.AttributeType.GRAPHS else []


def integers(node: ir.Node, index: int, name: str, shapes: Shapes) -> list[int] | None:
    """Numbers given as an input (newer opsets) or an attribute (older ones); None when absent or not known."""
    if name in node.attributes:
        return [int(i) for i in node.attributes[name].value]
    return shapes.numbers(node.inputs[index]) if index < len(node.inputs) else None


def become(
    node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any] | None = None
) -> None:
    """Turn a node into another operation with the same outputs; what only its old inputs needed is removed."""
    old = [v for v in node.inputs if v is not None]
    node.op_type = op_type
    node.resize_inputs(len(inputs))
    for i, value in enumerate(inputs):
        node.replace_input_with(i, value)
    node.attributes.clear()
    for name, given in (attributes or {}).items():
        attr = given if isinstance(given, ir.Attr) else ir.convenience.convert_attribute(name, given)
        node.attributes[name] = attr
    for value in old:
        discard(value)


def bypass_hindrance(output: ir.Value, source: ir.Value) -> str:
    """Why readers of `output` cannot read `source` instead; empty when they can."""
    if not output.is_graph_output():
        return ""
    producer, owner = source.producer(), output.producer()
    if producer is None or owner is None or producer.graph is not owner.graph:
        return "a graph output must be computed by a node of its graph"
    if source.is_graph_output():
        return "its input is a graph output too"
    return ""


def bypass(output: ir.Value, source: ir.Value) -> None:
    """Let readers of `output` read `source`, which takes over the name of a graph output; see `bypass_hindrance`."""
    node = output.producer()
    metadata.move(output, source, *(k for k in output.metadata_props if k not in source.metadata_props))
    if output.is_graph_output():
        graph = node.graph if node is not None else None
        assert graph is not None
        name = output.name
        kept = (output.shape, output.type)
        for i, found in enumerate(graph.outputs):
            if found is output:
                graph.outputs[i] = source
        output.name = None
        source.name, source.shape, source.type = name, kept[0] or source.shape, kept[1] or source.type
    output.replace_all_uses_with(source)
    discard(output)


def discard(value: ir.Value) -> None:
    """Remove what computes a value that nobody reads, and in turn what only that needed."""
    pending = [value]
    while pending:
        unused = pending.pop()
        if unused.uses() or unused.is_graph_output():
            continue
        node = unused.producer()
        if node is None:
            graph = unused.graph
            if unused.is_initializer() and not unused.is_graph_input() and graph is not None and unused.name:
                graph.initializers.pop(unused.name, None)
        elif node.graph is not None and not any(o.uses() or o.is_graph_output() for o in node.outputs):
            pending += _detach(node)


def _detach(node: ir.Node) -> list[ir.Value]:
    """Remove a node with the graphs inside it; returns what they read."""
    freed = [v for v in node.inputs if v is not None]
    for attr in node.attributes.values():
        for graph in subgraphs(attr):
            for inner in graph.all_nodes():
                freed += [v for v in inner.inputs if v is not None]
                for i in range(len(inner.inputs)):
                    inner.replace_input_with(i, None)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return freed

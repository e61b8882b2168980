"""The IR as a trainable `torch.fx.GraphModule`, whole or a piece of it, and its weights back into the initialisers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.analysis import analyze_implicit_usage

from ...errors import ModelError
from .facts import contents, reads
from .lowering import Lowering
from .tensors import array_of

__all__ = ["Bridge", "to_fx"]


@dataclass(frozen=True)
class Bridge:
    """A piece of the model as a torch module.

    module: takes the values named in `inputs`, in order, and returns a tuple of those named in `outputs`.
    weights: path of a parameter or buffer in the module -> the initialiser it was copied from.
    """

    module: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: Mapping[str, ir.Value] = field(repr=False)

    def write_back(self) -> list[str]:
        """Put the module's floating-point weights into their initialisers; the names of those that changed.

        Type and shape stay; an initialiser whose weight is equal to the bit keeps its tensor object.
        """
        changed = []
        state = dict(self.module.named_parameters(remove_duplicate=False))
        state |= dict(self.module.named_buffers(remove_duplicate=False))
        for path, value in self.weights.items():
            before = value.const_value
            assert before is not None
            if not before.dtype.is_floating_point():
                continue
            after = array_of(state[path]).astype(before.dtype.numpy(), copy=False).reshape(before.shape.numpy())
            if np.ascontiguousarray(before.numpy()).tobytes() != after.tobytes():
                value.const_value = ir.Tensor(after, dtype=before.dtype, name=value.name)
                changed.append(value.name or path)
        return changed


def to_fx(model: ir.Model, nodes: Sequence[ir.Node] | None = None, *, trainable: bool = True) -> Bridge:
    """The model, or the sub-graph formed by `nodes`, as a GraphModule; the model is not touched.

    nodes: nodes of the main graph in any order; what they read from elsewhere becomes the inputs (in order of first
        use), what is read elsewhere the outputs (in order of computation).
    trainable: floating-point initialisers become parameters; statistics, bounds and integers are always buffers.
    Raises ModelError naming the nodes whose operator has no torch form.
    """
    graph = model.graph
    chosen = list(graph) if nodes is None else _in_order(graph, nodes)
    if nodes is None:
        inputs = [value for value in graph.inputs if value.const_value is None]
        outputs = list(graph.outputs)
    else:
        inputs, outputs = _boundary(graph, chosen)
    lowering = Lowering(model, trainable)
    lowering.require_supported(chosen)
    module = lowering.build(chosen, inputs, outputs)
    return Bridge(module, _names(inputs), _names(outputs), lowering.weights)


def _names(values: Iterable[ir.Value]) -> tuple[str, ...]:
    return tuple(value.name or "" for value in values)


def _in_order(graph: ir.Graph, nodes: Sequence[ir.Node]) -> list[ir.Node]:
    wanted = set(nodes)
    chosen = [node for node in graph if node in wanted]
    if len(chosen) != len(wanted):
        stray = next(node for node in nodes if node.graph is not graph)
        raise ModelError(
            f"node {stray.name} is not in the main graph",
            where=f"{stray.op_type} {stray.name}",
            hint="give nodes of model.graph; a node with sub-graphs brings them along",
        )
    return chosen


def _boundary(graph: ir.Graph, nodes: Sequence[ir.Node]) -> tuple[list[ir.Value], list[ir.Value]]:
    """What a set of nodes reads from elsewhere, constants aside, and what elsewhere reads from it."""
    captured = {g: values for g, values in analyze_implicit_usage(graph).items() if values}
    inside = set(nodes)
    produced = {value for node in nodes for value in node.outputs}
    inputs: dict[ir.Value, None] = {}
    for node in nodes:
        for value in reads(node, captured):
            if value not in produced and contents(value) is None:
                inputs[value] = None
    elsewhere: set[ir.Value] = set()
    if captured:
        elsewhere = {value for node in graph if node not in inside for value in reads(node, captured)}
    outputs = [
        value
        for node in nodes
        for value in node.outputs
        if value.is_graph_output()
        or value in elsewhere
        or any(use.node not in inside and use.node.graph is graph for use in value.uses())
    ]
    return list(inputs), outputs

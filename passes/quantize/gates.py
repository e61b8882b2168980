"""Rounding that can be let through site by site: DQ(Q(x)) where the gate is open, x where it is shut; weights too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.graph import constant, initializer, is_constant, static_shape
from .placement import FUSED

__all__ = ["Site", "gated"]


@dataclass(frozen=True)
class Site:
    """One gate: the layer (node) it counts to, and the value that is rounded behind it.

    kind: `weights` (and biases) of the layer, or the `activation` that it leaves.
    """

    gate: str
    kind: str
    layer: str
    value: str


def gated(model: ir.Model, exact: ir.Model) -> tuple[ir.Model, list[Site]]:
    """A copy of a Q/DQ model with a gate for every rounded activation, and for every layer's rounded constants.

    exact: the model before rounding, whose nodes have the same names. Constants of nodes that it does not hold, or
    holds in another shape, stay rounded. A gate is a boolean input, and what is shut is not computed.
    """
    copy = model.clone()
    before = {node.name: node for node in exact.graph}
    sites: list[Site] = []
    for node in list(copy.graph):
        if node.op_type != "DequantizeLinear" or node.inputs[0] is None:
            continue
        if is_constant(node.inputs[0]):
            _gate_constant(copy.graph, node, before, sites)
            continue
        quantize = node.inputs[0].producer()
        if quantize is None or quantize.op_type != "QuantizeLinear" or quantize.inputs[0] is None:
            continue
        value = quantize.inputs[0]
        gate = _gate(copy.graph, len(sites))
        sites.append(Site(gate.name or "", "activation", _layer(value), str(value.name)))
        _let_through(copy.graph, quantize, node, value, gate)
    return copy, sites


def _gate_constant(graph: ir.Graph, read: ir.Node, before: dict[str | None, ir.Node], sites: list[Site]) -> None:
    """W + gate·(DQ(W_q) − W) for the reader of a rounded constant; a layer's constants share one gate."""
    for use in list(read.outputs[0].uses()):
        node = before.get(use.node.name)
        if node is None or node.op_type != use.node.op_type:
            continue
        old = node.inputs[use.idx] if use.idx < len(node.inputs) else None
        stated = static_shape(read.outputs[0])
        numbers = constant(old) if old is not None else (np.zeros(stated, np.float32) if stated else None)
        if numbers is None or numbers.dtype != np.float32 or stated not in (None, numbers.shape):
            continue
        layer = str(use.node.name)
        shared = next((s for s in sites if s.kind == "weights" and s.layer == layer), None)
        if shared is None:
            gate = _gate(graph, len(sites))
            sites.append(Site(gate.name or "", "weights", layer, str(old.name) if old is not None else layer))
        else:
            gate = next(v for v in graph.inputs if v.name == shared.gate)
        weight = initializer(graph, f"{read.outputs[0].name}_exact_{layer}_{use.idx}", numbers)
        chosen = _either(weight, [read], gate, f"{gate.name}_{use.idx}")
        use.node.replace_input_with(use.idx, chosen.outputs[0])
        graph.insert_after(read, [chosen])
    if not read.outputs[0].uses():
        graph.remove(read, safe=True)


def _gate(graph: ir.Graph, number: int) -> ir.Value:
    name = f"planish_gate_{number}"
    gate = ir.Value(name=name, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    graph.inputs.append(gate)
    return gate


def _let_through(graph: ir.Graph, quantize: ir.Node, dequantize: ir.Node, exact: ir.Value, gate: ir.Value) -> None:
    rounded = dequantize.outputs[0]
    chosen = _either(exact, [quantize, dequantize], gate, str(gate.name))
    result = chosen.outputs[0]
    for use in list(rounded.uses()):
        use.node.replace_input_with(use.idx, result)
    if rounded.is_graph_output():
        rounded.name, result.name = f"{gate.name}_rounded", rounded.name
        graph.outputs[list(graph.outputs).index(rounded)] = result
    graph.insert_after(dequantize, [chosen])
    graph.remove(dequantize, safe=True)
    if not quantize.outputs[0].uses():
        graph.remove(quantize, safe=True)


def _either(exact: ir.Value, rounding: list[ir.Node], gate: ir.Value, stem: str) -> ir.Node:
    """If(gate) {a copy of the rounding nodes} else {exact}."""
    value: ir.Value | None = None
    steps = []
    for number, node in enumerate(rounding):
        inputs = [value if number else node.inputs[0], *node.inputs[1:]]
        step = ir.Node("", node.op_type, inputs, list(node.attributes.values()), num_outputs=1)
        value = step.outputs[0]
        value.name = f"{stem}_open_{number}"
        steps.append(step)
    same = ir.Node("", "Identity", [exact], num_outputs=1)
    same.outputs[0].name = f"{stem}_shut"
    branches = {"then_branch": steps, "else_branch": [same]}
    for nodes in branches.values():
        nodes[-1].outputs[0].dtype, nodes[-1].outputs[0].shape = ir.DataType.FLOAT, exact.shape
    graphs = {n: ir.Graph((), [nodes[-1].outputs[0]], nodes=nodes, name=f"{stem}_{n}") for n, nodes in branches.items()}
    chosen = ir.Node("", "If", [gate], [ir.AttrGraph(n, g) for n, g in graphs.items()], num_outputs=1)
    chosen.outputs[0].name, chosen.outputs[0].dtype = f"{stem}_chosen", ir.DataType.FLOAT
    chosen.outputs[0].shape = exact.shape
    return chosen


def _layer(value: ir.Value) -> str:
    """The node that a value belongs to: its producer, or the one whose accumulator the producer is applied to."""
    node = value.producer()
    if node is None:
        return f"input {value.name}"
    while node.op_type in FUSED and node.inputs[0] is not None and (source := node.inputs[0].producer()) is not None:
        if source.op_type == "DequantizeLinear" or len(node.inputs[0].uses()) > 1:
            break
        node = source
    return str(node.name)

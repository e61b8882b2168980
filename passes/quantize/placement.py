"""Which nodes become integer and which values carry integers between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import only_consumer
from ...targets.target import Target
from .legality import biased, data_inputs, has_weights, is_product, why_not_integer

__all__ = ["FUSED", "Placement", "activated", "is_anchor", "place", "result_of", "why_no_encoding"]

# activations that an integer kernel applies to its accumulator: no rounding between the two
FUSED = frozenset({"Relu", "Clip"})
# operators that pay even where their result stays float: what they read is far larger, and smaller as integers
_SUMMARIES = frozenset({"GlobalAveragePool", "ReduceMean"})
_FUSES_INTO = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul"})


@dataclass
class Placement:
    """integer: nodes that run on integers, in order; quantized: values that get Q/DQ, in order;

    groups: for each quantized value the values that share its encoding (data movement between them);
    reasons: every other candidate with why it stays float.
    """

    integer: list[ir.Node] = field(default_factory=list)
    quantized: list[ir.Value] = field(default_factory=list)
    groups: Mapping[ir.Value, list[ir.Value]] = field(default_factory=dict)
    reasons: dict[ir.Node, str] = field(default_factory=dict)


def place(
    model: ir.Model,
    target: Target,
    why_no_encoding: Callable[[ir.Value], str],
    excluded: Mapping[ir.Node, str] | None = None,
) -> Placement:
    """Anchors (`is_anchor`) become integer where their inputs have evidence; other operators join them where every
    input comes from an integer node and some consumer takes integers.

    why_no_encoding: the reason why a value cannot hold integers; empty when it can.
    excluded: nodes that must stay float, with the reason; those that a pass marked (`metadata.FLOAT`) do too.
    """
    nodes = list(model.graph)
    reasons = {node: reason for node in nodes if (reason := why_not_integer(node, target))} | dict(excluded or {})
    reasons |= {node: str(why) for node in nodes if (why := metadata.get(node, metadata.FLOAT))}
    chosen = _grow(nodes, target, reasons, why_no_encoding)
    if not target.integer_results:
        _prune(nodes, chosen, reasons)
    placement = Placement([n for n in nodes if n in chosen], reasons=reasons)
    placement.quantized = _quantized_values(placement.integer, chosen, target.integer_results)
    placement.groups = _groups(placement, target)
    return placement


def is_anchor(node: ir.Node, target: Target) -> bool:
    """Integers pay for themselves: weights are constant, or both factors computed where results may stay float."""
    return has_weights(node) or (is_product(node) and not target.integer_results)


def why_no_encoding(value: ir.Value) -> str:
    """The reason why a value cannot hold integers, from what passes found out about its range; empty when it can."""
    if value.dtype != ir.DataType.FLOAT:
        return f"{value.name} is not float32"
    evidence = metadata.get(value, metadata.EVIDENCE)
    if evidence is None:
        return f"no evidence for the range of {value.name}"
    if "refused" in evidence:
        return str(evidence["refused"])
    return ""


def _grow(
    nodes: list[ir.Node], target: Target, reasons: dict[ir.Node, str], why_no_encoding: Callable[[ir.Value], str]
) -> set[ir.Node]:
    chosen: set[ir.Node] = set()
    for node in nodes:
        if node in reasons:
            continue
        inputs = data_inputs(node)
        fused = _fused_into(node, chosen, target.integer_results)
        unknown = [w for v in inputs if not fused and (w := why_no_encoding(v))]
        if unknown:
            reasons[node] = unknown[0]
        elif is_anchor(node, target):
            missing = [why_no_encoding(activated(node.outputs[0]))] if target.integer_results else []
            if any(missing):
                reasons[node] = missing[0]
            else:
                chosen.add(node)
        elif not all(_comes_as_integers(v, chosen, node.op_type in target.movement_ops) for v in inputs):
            reasons[node] = "an input comes from a float operator"
        elif missing := [w for v in node.outputs if (w := why_no_encoding(v))]:
            reasons[node] = missing[0]
        else:
            chosen.add(node)
    return chosen


def activated(value: ir.Value) -> ir.Value:
    """The value behind the activations that are applied to the accumulator."""
    while len(value.uses()) == 1 and not value.is_graph_output():
        (use,) = value.uses()
        if use.node.op_type not in FUSED or use.idx:
            break
        value = use.node.outputs[0]
    return value


def result_of(node: ir.Node) -> ir.Value:
    """The value behind the bias and the activations that are applied to an anchor's accumulator."""
    value = node.outputs[0]
    reader = only_consumer(value)
    return activated(reader.outputs[0] if reader is not None and biased(reader) is node else value)


def _comes_as_integers(value: ir.Value, chosen: set[ir.Node], movement: bool) -> bool:
    producer = value.producer()
    return movement and value.is_graph_input() if producer is None else producer in chosen


def _fused_into(node: ir.Node, chosen: set[ir.Node], results: bool) -> ir.Node | None:
    """The integer node whose accumulator this activation is applied to, or this bias added to where results may stay
    float (`results`: they may not).
    """
    if not results and (product := biased(node)) is not None:
        return product if product in chosen else None
    if node.op_type not in FUSED or not node.inputs or node.inputs[0] is None:
        return None
    value = node.inputs[0]
    producer = value.producer()
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    return producer if producer in chosen and producer.op_type in _FUSES_INTO and alone else None


def _prune(nodes: list[ir.Node], chosen: set[ir.Node], reasons: dict[ir.Node, str]) -> None:
    """Take out, from the end, what no integer node reads: its result would only be turned back into float."""
    for node in reversed(nodes):
        if node not in chosen or has_weights(node) or is_product(node) or node.op_type in _SUMMARIES:
            continue
        if not any(use.node in chosen for v in node.outputs for use in v.uses()):
            chosen.discard(node)
            reasons[node] = "no consumer takes integers"


def _quantized_values(integer: list[ir.Node], chosen: set[ir.Node], results: bool) -> list[ir.Value]:
    found: dict[ir.Value, None] = {}
    for node in integer:
        if not _fused_into(node, chosen, results):
            found |= dict.fromkeys(data_inputs(node))
        if (has_weights(node) or is_product(node)) and not results:
            continue  # its result may stay float: the accumulator times the scales
        fused = [v for v in node.outputs[:1] if any(_fused_into(use.node, chosen, results) for use in v.uses())]
        found |= dict.fromkeys(v for v in node.outputs if v not in fused and (v.uses() or v.is_graph_output()))
    return list(found)


def _groups(placement: Placement, target: Target) -> dict[ir.Value, list[ir.Value]]:
    """Values joined by data movement share one encoding."""
    group: dict[ir.Value, list[ir.Value]] = {v: [v] for v in placement.quantized}
    for node in placement.integer:
        if node.op_type not in target.movement_ops:
            continue
        touched = [v for v in (*data_inputs(node), *node.outputs) if v in group]
        merged = list(dict.fromkeys(w for v in touched for w in group[v]))
        for v in merged:
            group[v] = merged
    return group

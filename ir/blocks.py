"""Partition of a graph into blocks: layers, residual and other branching blocks, stages; each node is in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import onnx_ir as ir
from onnx_ir.analysis import analyze_implicit_usage

from .graph import attribute, is_constant, only_consumer, static_shape

__all__ = ["ANCHORS", "Block", "Grain", "block_lines", "partition"]

Grain = Literal["layer", "block", "stage"]

ANCHORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "GRU", "LSTM", "RNN"})
# what belongs to the layer before it when nothing else reads that layer and its other operands are constants
_FOLLOWERS = frozenset(
    {
        "Add",
        "BatchNormalization",
        "Clip",
        "Div",
        "Elu",
        "Erf",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "Mul",
        "PRelu",
        "Relu",
        "Sigmoid",
        "Softplus",
        "Sub",
        "Tanh",
    }
)
_LAYERS_OF_A_BLOCK = 2  # where nothing branches; depthwise convolutions do not count


@dataclass(frozen=True)
class Block:
    """Nodes, in order, with what they read from outside (constants left out) and what is read of them outside.

    A block with one input and one output can be replaced, or trained, by itself.
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]

    @property
    def name(self) -> str:
        """The name of its first layer, else of its first node."""
        return str((self.anchors or self.nodes)[0].name or (self.anchors or self.nodes)[0].outputs[0].name)

    @property
    def anchors(self) -> tuple[ir.Node, ...]:
        """Its nodes with weights."""
        return tuple(node for node in self.nodes if _is_anchor(node))

    @property
    def single(self) -> bool:
        """One value in, one value out."""
        return len(self.inputs) == 1 and len(self.outputs) == 1

    @property
    def kind(self) -> str:
        """`residual`, `concat` or `branching` by what joins the branches, `chain`, or `pointwise` without weights."""
        joins = [n for n in self.nodes if sum(not is_constant(v) for v in n.inputs if v is not None) > 1]
        if any(n.op_type == "Add" for n in joins) and len(self.nodes) > 1 and self.anchors:
            return "residual"
        if any(n.op_type == "Concat" for n in joins):
            return "concat"
        if joins:
            return "branching"
        return "chain" if self.anchors else "pointwise"


def partition(model: ir.Model, grain: Grain = "block") -> list[Block]:
    """The main graph as blocks, in an order in which they can run.

    layer: a Conv, Gemm, MatMul or recurrent node with the bias, normalisation and activation that follow it.
    block: the layers between two values that everything passes through, where branches part and join again;
    elsewhere two layers, not counting depthwise ones, which stay with the layer behind them.
    stage: blocks up to the next change of the spatial size; shapes must be inferred.
    """
    if grain not in get_args(Grain):
        raise ValueError(f"grain is {grain!r}, not one of {', '.join(get_args(Grain))}")
    reads = _reads(model.graph)
    groups = _layers(model.graph)
    if grain != "layer":
        groups = list(_runs(_regions(model.graph, groups, reads)))
    if grain == "stage":
        groups = list(_stages(groups))
    return [_block(nodes, reads) for nodes in groups]


def block_lines(block: Block) -> list[str]:
    """A block in text: kind, values in and out, then a line for every node."""
    into, out = (" ".join(str(v.name) for v in values) for values in (block.inputs, block.outputs))
    return [f"{block.kind} {block.name}: {into} -> {out}", *(f"  {n.op_type} {n.outputs[0].name}" for n in block.nodes)]


def _reads(graph: ir.Graph) -> dict[ir.Node, list[ir.Value]]:
    """What each node reads that is not constant, sub-graphs included, each value once."""
    captured = analyze_implicit_usage(graph)
    found = {}
    for node in graph:
        inner = [
            v for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH for v in captured[a.as_graph()]
        ]
        values = [*node.inputs, *sorted(inner, key=lambda v: str(v.name))]
        found[node] = list(dict.fromkeys(v for v in values if v is not None and not is_constant(v)))
    return found


def _is_anchor(node: ir.Node) -> bool:
    return (
        node.op_type in ANCHORS and len(node.inputs) > 1 and (node.op_type != "MatMul" or is_constant(node.inputs[1]))
    )


def _depthwise(node: ir.Node) -> bool:
    groups = int(attribute(node, "group", 1))  # type: ignore[call-overload]
    shape = static_shape(node.inputs[1])
    return node.op_type == "Conv" and shape is not None and shape[1] == 1 < groups


def _layers(graph: ir.Graph) -> list[list[ir.Node]]:
    """Every node of its own, but for the followers of a layer."""
    groups: list[list[ir.Node]] = []
    taken: set[ir.Node] = set()
    for node in graph:
        if node in taken:
            continue
        group = [node]
        if _is_anchor(node):
            group += _followers(node.outputs[0])
        taken.update(group)
        groups.append(group)
    return groups


def _followers(value: ir.Value) -> Iterator[ir.Node]:
    while (node := only_consumer(value)) is not None and node.op_type in _FOLLOWERS:
        if any(v is not None and v is not value and not is_constant(v) for v in node.inputs):
            return
        yield node
        value = node.outputs[0]


def _regions(
    graph: ir.Graph, groups: Sequence[list[ir.Node]], reads: dict[ir.Node, list[ir.Value]]
) -> Iterator[list[list[ir.Node]]]:
    """Runs of groups that end where a single value is still to be read: everything behind depends on it alone."""
    left = Counter(v for node in graph for v in reads[node])
    left.update(graph.outputs)
    live = {v for v in graph.inputs if left[v]}
    region: list[list[ir.Node]] = []
    for group in groups:
        region.append(group)
        for node in group:
            left.subtract(reads[node])
            live.update(node.outputs)
        live = {v for v in live if left[v] > 0}
        if len(live) <= 1:
            yield region
            region = []
    if region:
        yield region


def _runs(regions: Iterator[list[list[ir.Node]]]) -> Iterator[list[ir.Node]]:
    """Branching regions with the pointwise nodes behind them, and what is between them in pieces of two layers."""
    run: list[ir.Node] = []
    full = False
    for region in regions:
        nodes = [node for group in region for node in group]
        anchors = [node for node in nodes if _is_anchor(node)]
        branching = len(region) > 1
        if run and anchors and (full or branching):
            yield run
            run = []
        run += nodes
        dense = sum(_is_anchor(node) and not _depthwise(node) for node in run)
        full = branching or dense >= _LAYERS_OF_A_BLOCK
    if run:
        yield run


def _stages(groups: Sequence[list[ir.Node]]) -> Iterator[list[ir.Node]]:
    stage: list[ir.Node] = []
    size: tuple[int, ...] | None = None
    for nodes in groups:
        shape = static_shape(nodes[-1].outputs[0]) or tuple(_dims(nodes[-1].outputs[0]))
        if stage and shape[2:] != size:
            yield stage
            stage = []
        stage += nodes
        size = shape[2:]
    if stage:
        yield stage


def _dims(value: ir.Value) -> list[int]:
    """The known dimensions; those that are not fixed count as 0."""
    return [d if isinstance(d, int) else 0 for d in value.shape or ()]


def _block(nodes: Sequence[ir.Node], reads: dict[ir.Node, list[ir.Value]]) -> Block:
    inside, made = set(nodes), {v for node in nodes for v in node.outputs}
    inputs = dict.fromkeys(v for node in nodes for v in reads[node] if v not in made)
    outside = {v for node, values in reads.items() if node not in inside for v in values}
    outputs = [v for node in nodes for v in node.outputs if v in outside or v.is_graph_output()]
    return Block(tuple(nodes), tuple(inputs), tuple(outputs))

"""The end of a network that decides: a layer that gives scores, and what leads to it from the last feature map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ...ir.graph import attribute, constant, is_constant, only_consumer
from ...ir.layers import Layer, layer_of

__all__ = ["Tail", "tail_of"]

_FEWEST = 3  # scores that are a decision
# what turns scores into an output without mixing them with anything else
_AFTER_SCORES = frozenset({"Add", "Flatten", "Identity", "LogSoftmax", "Reshape", "Softmax", "Squeeze"})
_ACTIVATIONS = frozenset({"Clip", "Elu", "Gelu", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Swish"})
_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean"})


@dataclass(frozen=True)
class Tail:
    """The nodes from a value to the scores, in order; it is the only thing they compute with.

    entry: the value; shape: its own, without the batch; first: the layer that reads it.
    positionwise: every position counts alike until they are averaged, so that a map of any size will do.
    """

    nodes: tuple[ir.Node, ...]
    entry: ir.Value
    shape: tuple[int, ...]
    first: Layer
    positionwise: bool


def tail_of(layer: Layer) -> Tail | str:
    """What leads to a layer that gives scores, from the input of the layer before it; or why there is none.

    An activation that makes that input belongs to it, so that what is drawn is not one-sided.
    """
    if not _gives_scores(layer):
        return "its result is no vector of scores"
    nodes = [layer.node, *_added(layer)]
    value, first = _only_input(layer.node), None
    while first is None and value is not None and (producer := value.producer()) is not None:
        first = layer_of(producer)
        nodes.insert(0, producer)
        value = _only_input(producer)
    if first is None or value is None:
        return "more than one value leads to it from the layers before it"
    activation = value.producer()
    if activation is not None and activation.op_type in _ACTIVATIONS and (before := _only_input(activation)):
        nodes.insert(0, activation)
        value = before
    sizes = tuple(d for d in tuple(value.shape or ())[1:] if isinstance(d, int))
    if value.shape is None or len(sizes) != len(value.shape) - 1 or not sizes:
        return "the shape of what leads to it is not known"
    return Tail(tuple(dict.fromkeys(nodes)), value, sizes, first, len(sizes) > 1 and _positionwise(nodes))


def _added(layer: Layer) -> list[ir.Node]:
    """The Add behind a MatMul that is part of the layer."""
    producer = layer.output.producer()
    return [] if producer is None or producer is layer.node else [producer]


def _only_input(node: ir.Node) -> ir.Value | None:
    """What a node reads besides constants; None when that is more than one value."""
    found = [v for v in node.inputs if v is not None and not is_constant(v)]
    return found[0] if len(found) == 1 else None


def _gives_scores(layer: Layer) -> bool:
    shape = layer.output.shape
    if layer.node.op_type not in ("Gemm", "MatMul") or shape is None or len(shape) != 2:
        return False
    value: ir.Value | None = layer.output
    while value is not None and not value.is_graph_output():
        node = only_consumer(value)
        value = node.outputs[0] if node is not None and node.op_type in _AFTER_SCORES else None
    return value is not None and len(layer.matrix()) >= _FEWEST


def _positionwise(nodes: Sequence[ir.Node]) -> bool:
    """Whether the nodes take maps of any size: 1×1 convolutions and activations, until one averages over positions."""
    for node in nodes:
        if node.op_type in _POOLS:
            return all(size == 1 for size in tuple(node.outputs[0].shape or (0, 0, 0))[2:])
        pointwise = node.op_type == "Conv" and _is_pointwise(node)
        if not pointwise and node.op_type not in _ACTIVATIONS | {"BatchNormalization"}:
            return False
    return False


def _is_pointwise(node: ir.Node) -> bool:
    kernel = constant(node.inputs[1])
    moves = [*attribute(node, "pads", ()), *(stride - 1 for stride in attribute(node, "strides", ()))]  # type: ignore[misc, attr-defined]
    return kernel is not None and not any(moves) and all(size == 1 for size in kernel.shape[2:])

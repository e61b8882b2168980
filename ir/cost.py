"""What a model costs: multiply-accumulates, parameters and bytes of every node, and a roofline estimate of its cycles.

A dimension that is not static counts as 1, and the result says so (`assumed`): fix the input shapes and infer before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from .graph import all_nodes, attribute

__all__ = ["Cost", "Summary", "cost", "cycles", "macs", "summary"]

Shape = tuple[int, ...]

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Cost:
    """One node: multiply-accumulates, elements and bytes of its constants, bytes of activations it reads and writes.

    assumed: a dimension that is not static was taken as 1.
    """

    macs: int
    parameters: int
    weight_bytes: int
    activation_bytes: int
    assumed: bool


@dataclass(frozen=True)
class Summary:
    """A whole model, subgraphs included. nodes counts all but Constant, QuantizeLinear and DequantizeLinear;
    macs_per_op says which operators multiply; branches of an If are all counted."""

    nodes: int
    parameters: int
    weight_bytes: int
    macs: int
    per_op: Mapping[str, int]
    macs_per_op: Mapping[str, int]
    assumed: bool


def _dims(value: ir.Value | None) -> Shape:
    """The shape with 1 for what is not static; () where even the rank is unknown."""
    if value is None or value.shape is None:
        return ()
    return tuple(d if isinstance(d, int) else 1 for d in value.shape)


def _assumed(value: ir.Value | None) -> bool:
    return value is not None and (value.shape is None or not all(isinstance(d, int) for d in value.shape))


def _size(value: ir.Value | None) -> int:
    return math.prod(_dims(value))


def _conv(node: ir.Node) -> int:
    """Every output element takes C/group · kernel products: weight [M, C/group, *kernel]."""
    return _size(node.outputs[0]) * math.prod(_dims(node.inputs[1])[1:])


def _conv_transpose(node: ir.Node) -> int:
    """Every input element meets M/group · kernel weights: weight [C, M/group, *kernel]."""
    return _size(node.inputs[0]) * math.prod(_dims(node.inputs[1])[1:])


def _gemm(node: ir.Node) -> int:
    shape = _dims(node.inputs[0])
    depth = shape[0 if attribute(node, "transA", 0) else -1] if shape else 1
    return _size(node.outputs[0]) * depth


def _matmul(node: ir.Node) -> int:
    shape = _dims(node.inputs[0])
    return _size(node.outputs[0]) * (shape[-1] if shape else 1)


def _recurrent(node: ir.Node) -> int:
    """Each step and direction multiplies x by W [gates·hidden, input] and h by R [gates·hidden, hidden]."""
    shape = _dims(node.inputs[0])
    steps = math.prod(shape[:2])  # time and batch, in either layout
    return steps * (_size(node.inputs[1]) + _size(node.inputs[2]))


def _einsum(node: ir.Node) -> int:
    """The product of the sizes of all labels, for two operands written out."""
    equation: Any = attribute(node, "equation", "")
    labels: dict[str, int] = {}
    for term, value in zip(str(equation).replace(" ", "").split("->")[0].split(","), node.inputs, strict=False):
        labels |= dict(zip(term, _dims(value), strict=False))
    return math.prod(labels.values())


# operator -> its multiply-accumulates; operators that are not here do none
MACS: Mapping[str, Callable[[ir.Node], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "RNN": _recurrent,
}


def macs(node: ir.Node) -> int:
    """Multiply-accumulates of a node; 0 for operators that only add, compare or move."""
    rule = MACS.get(node.op_type)
    return 0 if rule is None or node.domain not in ("", "ai.onnx") else rule(node)


def cost(node: ir.Node) -> Cost:
    """The cost of one node; values behind Q/DQ count at their integer width, and Q/DQ nodes themselves cost nothing."""
    if node.op_type in _QUANTIZERS:
        return Cost(0, 0, 0, 0, False)
    values = [v for v in node.inputs if v is not None]
    constants = [c for c in map(_constant, values) if c is not None]
    moving = [v for v in values if _constant(v) is None] + list(node.outputs)
    return Cost(
        macs(node),
        sum(c.size for c in constants),
        sum(c.nbytes for c in constants),
        sum(math.ceil(_size(v) * _bits(v) / 8) for v in moving),
        any(_assumed(v) for v in moving),
    )


def _constant(value: ir.Value) -> ir.TensorProtocol | None:
    """The stored tensor behind a value: an initialiser, or the integers that a DequantizeLinear reads."""
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear" and producer.inputs[0] is not None:
        return _constant(producer.inputs[0])
    return None if value.is_graph_input() else value.const_value


def _bits(value: ir.Value) -> int:
    """Bits of an element as it is stored in memory: of the integers behind or in front of a float value, if any."""
    producer = value.producer()
    stored = value
    if producer is not None and producer.op_type == "DequantizeLinear" and producer.inputs[0] is not None:
        stored = producer.inputs[0]
    readers = [use.node for use in value.uses()]
    if readers and all(r.op_type == "QuantizeLinear" for r in readers):
        stored = readers[0].outputs[0]
    return 32 if stored.dtype is None else round(stored.dtype.itemsize * 8)


def _tensors(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value, value.const_value
        for node in graph:
            tensor: Any = attribute(node, "value") if node.op_type == "Constant" else None
            if isinstance(tensor, ir.TensorProtocol):
                yield node.outputs[0], tensor


def _is_parameter(value: ir.Value, tensor: ir.TensorProtocol) -> bool:
    """Floating-point contents and the integers a DequantizeLinear reads, not scales, zero points, shapes, indices."""
    uses = [(use.node.op_type in _QUANTIZERS, use.idx) for use in value.uses()]
    if uses and all(quantizer for quantizer, _ in uses):
        return any(i == 0 for _, i in uses)
    return tensor.dtype.is_floating_point()


def summary(model: ir.Model) -> Summary:
    """Nodes, parameters, bytes of all constants and multiply-accumulates of a model, in total and by operator."""
    counted = [n for n in all_nodes(model) if n.op_type not in (*_QUANTIZERS, "Constant")]
    per_op = Counter(n.op_type for n in counted)
    macs_per_op: Counter[str] = Counter()
    for node in counted:
        macs_per_op[node.op_type] += macs(node)
    tensors = list(_tensors(model))
    return Summary(
        nodes=len(counted),
        parameters=sum(t.size for v, t in tensors if _is_parameter(v, t)),
        weight_bytes=sum(t.nbytes for _, t in tensors),
        macs=sum(macs_per_op.values()),
        per_op=dict(per_op.most_common()),
        macs_per_op={op: n for op, n in macs_per_op.most_common() if n},
        assumed=any(_assumed(v) for n in counted if n.op_type in MACS for v in (n.inputs[0], *n.outputs)),
    )


def cycles(node: Cost, *, macs_per_cycle: float, bytes_per_cycle: float, overhead: float = 0.0) -> float:
    """Roofline: `max(macs / macs_per_cycle, bytes / bytes_per_cycle) + overhead`, whichever of the two is the limit.

    macs_per_cycle: lanes · depth · issue width of the instruction. bytes_per_cycle: of the memory that holds operands.
    """
    moved = node.weight_bytes + node.activation_bytes
    return max(node.macs / macs_per_cycle, moved / bytes_per_cycle) + overhead

"""What is known of an ONNX node before it runs: constant inputs, what it reads, what its torch form may ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import onnx_ir as ir

from ..graph import static_shape
from .quantized import levels_of

__all__ = ["FACTS", "branches_of", "contents", "parameters", "reads"]


def contents(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initialiser or of a Constant node's output; None for what is computed or fed."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value
    node = value.producer()
    return _constant_tensor(node) if node is not None and node.op_type == "Constant" else None


def _constant_tensor(node: ir.Node) -> ir.TensorProtocol:
    ((form, attribute),) = node.attributes.items()
    if form == "value":
        return attribute.as_tensor()
    dtype = ir.DataType.FLOAT if "float" in form else ir.DataType.INT64
    return ir.tensor(attribute.value, dtype=dtype)


def reads(node: ir.Node, captured: Mapping[ir.Graph, Iterable[ir.Value]]) -> list[ir.Value]:
    """What a node reads: its inputs, and what its sub-graphs capture (see `analyze_implicit_usage`), by name."""
    inner = {value for graph in branches_of(node) for value in captured.get(graph, ())}
    return [v for v in node.inputs if v is not None] + sorted(inner, key=lambda v: v.name or "")


def branches_of(node: ir.Node) -> list[ir.Graph]:
    return [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _first_rank(node: ir.Node, opset: int) -> int | None:
    return _rank(node.inputs[0])


def _bias_rank(node: ir.Node, opset: int) -> int | None:
    return _rank(node.inputs[2]) if len(node.inputs) > 2 else None


def _scale_shape(node: ir.Node, opset: int) -> list[int] | None:
    shape = static_shape(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if shape is None else list(shape)


def _floating(node: ir.Node, opset: int) -> bool | None:
    dtypes = [value.dtype for value in (*node.outputs, *node.inputs) if value is not None and value.dtype is not None]
    return dtypes[0].is_floating_point() if dtypes else None


def _levels(node: ir.Node, opset: int) -> tuple[int, int]:
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    found = contents(zero_point)
    declared = node.attributes.get_int("output_dtype", 0)
    dtype = found.dtype if found else zero_point.dtype if zero_point is not None else None
    return levels_of(dtype or (ir.DataType(declared) if declared else node.outputs[0].dtype))


FACTS: Mapping[str, Callable[[ir.Node, int], Any]] = {
    "bias_rank": _bias_rank,
    "floating": _floating,
    "levels": _levels,
    "opset": lambda node, opset: opset,
    "outputs": lambda node, opset: len(node.outputs),
    "rank": _first_rank,
    "scale_shape": _scale_shape,
}


@cache
def parameters(function: Callable[..., Any]) -> tuple[list[str], Callable[[str], bool]]:
    """Names of a function's positional parameters, and whether it has a parameter of a given name."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # torch's built-in functions
        return [], lambda name: False
    positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    return positional, lambda name: name in parameters

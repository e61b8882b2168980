"""Products with zeros that fill up vectors, of results or of what is summed.

f(x, W) = f(x, [W 0]) without the last columns; Σ x·w = Σ [x 0]·[w 0] for pairs of bfloat16.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir.graph import Array, attribute, constant, static_shape
from .formula import Formula

__all__ = ["paired", "whole_vectors", "widened"]

_SLICE_BY_INPUTS = 10
_TYPES = tuple(kind.numpy() for kind in (ir.DataType.FLOAT, ir.DataType.BFLOAT16))
_NARROWEST = 4  # results
_LEAST = 4  # vectors, from which on the zeros are few beside what narrower vectors would cost


def widened(node: ir.Node, lanes: int, version: int) -> list[ir.Node]:
    """A Conv, Gemm or MatMul with constant weights, with whole vectors of results that are cut behind it.

    Weights are float32 or bfloat16. Any other node as it is. lanes: results in a vector; version: of the operator set.
    """
    axis = _column_axis(node) if version >= _SLICE_BY_INPUTS else None
    weight = None if axis is None else constant(node.inputs[1])
    if axis is None or weight is None or weight.dtype not in _TYPES or static_shape(node.outputs[0]) is None:
        return [node]
    columns = weight.shape[axis]
    more = whole_vectors(columns, lanes) - columns
    bias = _bias(node, columns)
    if not more or bias is None:
        return [node]
    f = Formula(node, version)
    biases = [f.constant(np.pad(array, (0, more))) for array in bias]
    widths = [(0, more if a == axis else 0) for a in range(weight.ndim)]
    data = node.inputs[0]
    assert data is not None
    attributes = {name: found.value for name, found in node.attributes.items()}
    whole = f.op(node.op_type, data, f.constant(np.pad(weight, widths)), *biases, **attributes)
    place = 1 if node.op_type == "Conv" else len(static_shape(node.outputs[0]) or ()) - 1
    return f.finish(f.cut(whole, place, 0, columns))


def paired(node: ir.Node, version: int) -> list[ir.Node]:
    """A Conv of bfloat16 with an odd number of channels gets one more, of zeros; any other node is as it is."""
    weight = constant(node.inputs[1]) if node.op_type == "Conv" and node.domain in ("", "ai.onnx") else None
    data = node.inputs[0] if weight is not None else None
    if weight is None or data is None or data.dtype != ir.DataType.BFLOAT16 or weight.ndim != 4:
        return [node]
    if weight.shape[1] % 2 == 0 or weight.shape[1] == 1 or attribute(node, "group", 1) != 1:
        return [node]
    f = Formula(node, version)
    biases = [value for value in node.inputs[2:] if value is not None]
    attributes = {name: found.value for name, found in node.attributes.items()}
    more = f.constant(np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64))
    weights = f.constant(np.pad(weight, [(0, 0), (0, 1), (0, 0), (0, 0)]))
    return f.finish(f.op("Conv", f.op("Pad", data, more), weights, *biases, **attributes))


def whole_vectors(columns: int, lanes: int) -> int:
    """How many results are computed of so many; those that no narrower vector divides are filled up sooner."""
    fills = columns >= _LEAST * lanes or (columns > lanes and columns % _NARROWEST > 0)
    return -(-columns // lanes) * lanes if fills else columns


def _column_axis(node: ir.Node) -> int | None:
    """The axis of the weights that results lie on; None for what is no product of this form."""
    if node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
        return None
    weight = constant(node.inputs[1])
    if node.op_type == "Conv" and weight is not None and weight.ndim == 4 and attribute(node, "group", 1) == 1:
        return 0
    if node.op_type == "MatMul" and weight is not None and weight.ndim == 2:
        return 1
    return (0 if attribute(node, "transB", 0) else 1) if node.op_type == "Gemm" and weight is not None else None


def _bias(node: ir.Node, columns: int) -> list[Array] | None:
    """One number for each column, or no bias; None where it has another form."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return []
    bias = constant(node.inputs[2])
    return [bias] if bias is not None and bias.shape == (columns,) else None

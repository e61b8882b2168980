"""`Resize` and `Upsample` by takes of rows, where TVM's own would scale by the sizes of the tensors."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.graph import Array, attribute, constant, static_shape
from ...ir.resampling import linear_matrices, nearest_indices
from .formula import Formula
from .loops import refuse

__all__ = ["resize"]

# what TVM's resize agrees with ONNX about, where sizes are given or scales make whole sizes
_RESIZES = {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"}


def resize(f: Formula, node: ir.Node, shape: tuple[int, ...]) -> ir.Value | None:
    """Rows taken by their indices, or sums of two of them, axis by axis; None where TVM does what ONNX says.

    shape: of the operand. Raises ModelError for what neither has.
    """
    if _resizes_alike(node, shape):
        return None
    known = [None if v is None else constant(v) for v in node.inputs]
    indices, matrices = nearest_indices(node, shape, known), linear_matrices(node, shape, known)
    made = f.op("Identity", node.inputs[0])  # type: ignore[arg-type]
    if not isinstance(indices, str):
        return reduce(lambda x, item: _take(f, x, *item), indices.items(), made)
    if not isinstance(matrices, str):
        return reduce(lambda x, item: _blend(f, x, len(shape), *item), matrices.items(), made)
    raise refuse(node, indices if attribute(node, "mode", "nearest") == "nearest" else matrices)


def _resizes_alike(node: ir.Node, shape: tuple[int, ...]) -> bool:
    """TVM computes what ONNX says: it knows neither fractional scales nor these attributes."""
    result = static_shape(node.outputs[0])
    stretched = attribute(node, "keep_aspect_ratio_policy", "stretch") == "stretch"
    odd = [attribute(node, "antialias", 0), attribute(node, "axes"), not stretched]
    alike = attribute(node, "coordinate_transformation_mode", "half_pixel") in _RESIZES
    if node.op_type == "Upsample" or len(node.inputs) < 3 or result is None or any(odd) or not alike:
        return False
    if len(shape) not in (3, 4, 5) or result[:2] != shape[:2]:
        return False
    scales = constant(node.inputs[2])
    if scales is None or not scales.size:
        return True
    return bool(np.array_equal(np.multiply(scales, shape), result))


def _take(f: Formula, x: ir.Value, axis: int, index: Array) -> ir.Value:
    return f.op("Gather", x, f.constant(index, "int64"), axis=axis)


def _blend(f: Formula, x: ir.Value, rank: int, axis: int, matrix: Any) -> ir.Value:
    """matrix · x along the axis; its rows have at most two neighbours that are not 0."""
    below = (matrix != 0).argmax(axis=1)
    above = matrix.shape[1] - 1 - (matrix[:, ::-1] != 0).argmax(axis=1)
    rows, spread = np.arange(len(matrix)), [-1, *[1] * (rank - axis - 1)]
    shares = matrix[rows, below], np.where(above == below, 0, matrix[rows, above])
    parts = [
        f.op("Mul", _take(f, x, axis, index), f.constant(share.reshape(spread), "float32"))
        for index, share in zip((below, above), shares, strict=True)
    ]
    return f.op("Add", *parts)

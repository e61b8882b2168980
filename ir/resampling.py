"""Resize as one index array (nearest neighbour) or one matrix (linear) for each axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph import attribute

__all__ = ["linear_matrices", "nearest_indices"]

Array = npt.NDArray[np.generic]
Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

# coordinate in the operand of result position x, given (x, scale, operand size, result size)
_COORDINATES: Mapping[str, Callable[[Float, float, int, int], Float]] = {
    "asymmetric": lambda x, scale, old, new: x / scale,
    "half_pixel": lambda x, scale, old, new: (x + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda x, scale, old, new: (x + 0.5) / scale - 0.5 if new > 1 else x * 0,
    "align_corners": lambda x, scale, old, new: x * (old - 1) / (new - 1) if new > 1 else x * 0,
    "half_pixel_symmetric": lambda x, scale, old, new: old / 2 * (1 - new / (scale * old)) + (x + 0.5) / scale - 0.5,
}

_ROUND: Mapping[str, Callable[[Float], Float]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def nearest_indices(
    node: ir.Node, shape: Sequence[int | None], inputs: Sequence[Array | None]
) -> dict[int, Index] | str:
    """For each axis that changes, the operand position of every result position; or, as text, why there is none.

    shape: of the operand; None where it is not static, which an axis of scale 1 may be.
    inputs: the node's inputs where they are constant (roi, scales and sizes count; before opset 11: scales).
    """
    rounding = _text(node, "nearest_mode", "round_prefer_floor" if len(node.inputs) > 2 else "floor")
    if rounding not in _ROUND:
        return f"rounding {rounding}"
    positions = _positions(node, "nearest", shape, inputs)
    if isinstance(positions, str):
        return positions
    indices = {}
    for axis, (old, at) in positions.items():
        index = np.clip(_ROUND[rounding](at), 0, old - 1).astype(np.int64)
        if not np.array_equal(index, np.arange(old)):
            indices[axis] = index
    return indices


def linear_matrices(
    node: ir.Node, shape: Sequence[int | None], inputs: Sequence[Array | None]
) -> dict[int, npt.NDArray[np.float32]] | str:
    """For each axis that changes, the matrix [new, old] of a linear Resize; or, as text, why there is none."""
    positions = _positions(node, "linear", shape, inputs)
    if isinstance(positions, str):
        return positions
    matrices = {}
    for axis, (old, at) in positions.items():
        near = np.clip(at, 0, old - 1)
        below = np.floor(near).astype(np.int64)
        share = near - below
        matrix = np.zeros((len(at), old), np.float32)
        rows = np.arange(len(at))
        np.add.at(matrix, (rows, below), (1 - share).astype(np.float32))
        np.add.at(matrix, (rows, np.minimum(below + 1, old - 1)), share.astype(np.float32))
        if not np.array_equal(matrix, np.eye(old, dtype=np.float32)):
            matrices[axis] = matrix
    return matrices


def _positions(
    node: ir.Node, mode: str, shape: Sequence[int | None], inputs: Sequence[Array | None]
) -> dict[int, tuple[int, Float]] | str:
    """(operand size, coordinate in the operand of every result position) of each axis that is resized."""
    found = _text(node, "mode", "nearest")
    if found != mode:
        return f"mode {found}"
    coordinates = _text(node, "coordinate_transformation_mode", "half_pixel" if len(node.inputs) > 2 else "asymmetric")
    if coordinates not in _COORDINATES:
        return f"coordinate transformation {coordinates}"
    if attribute(node, "antialias", 0) or _text(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return "antialias or an aspect ratio policy"
    if mode == "linear" and attribute(node, "exclude_outside", 0):
        return "weights outside the operand are excluded"
    scaled = _scales_and_sizes(node, shape, inputs)
    if isinstance(scaled, str):
        return scaled
    return {
        axis: (old, _COORDINATES[coordinates](np.arange(new, dtype=np.float64), scale, old, new))
        for axis, (old, scale, new) in scaled.items()
    }


def _text(node: ir.Node, name: str, default: str) -> str:
    return str(attribute(node, name, default))


def _scales_and_sizes(
    node: ir.Node, shape: Sequence[int | None], inputs: Sequence[Array | None]
) -> dict[int, tuple[int, float, int]] | str:
    """(operand size, scale, result size) of every axis that is resized."""
    old_form = len(node.inputs) == 2
    scales = inputs[1] if old_form else inputs[2] if len(inputs) > 2 else None
    if len(node.inputs) == 1 and "scales" in node.attributes:  # Upsample before opset 9
        scales = np.asarray(node.attributes["scales"].value)
    sizes = inputs[3] if len(inputs) > 3 else None
    found: Any = attribute(node, "axes")
    axes = [int(a) % len(shape) for a in found] if found else list(range(len(shape)))
    by_size = sizes is not None and sizes.size > 0
    given = sizes if by_size else scales
    if given is None or given.size != len(axes):
        return "the scales or sizes are not constant"
    result = {}
    for axis, number in zip(axes, given.astype(np.float64).tolist(), strict=True):
        old = shape[axis]
        if not by_size and number == 1.0:
            continue
        if old is None:
            return f"the size of axis {axis} is not static"
        result[axis] = (old, number / old, int(number)) if by_size else (old, number, int(np.floor(old * number)))
    return result

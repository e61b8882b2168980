"""What a model's input can be: a picture, a sequence of features, or what no numbers are invented for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ModelError
from ...ir.cost import summary
from ...ir.feeds import working_feeds
from ...ir.probe import with_shapes

__all__ = ["Signature", "read_signature"]

Feed = dict[str, npt.NDArray[np.generic]]

_PICTURE_CHANNELS = (1, 3, 4)
_SMALLEST_PICTURE = 16  # pixels a side; below it a plane is rather a table of features
_LONGEST_ASPECT = 4.0
_PICTURE_SIZES = (128, 96, 64, 48, 32, 224, 256, 320)  # tried, in order, for free height and width
_AFFORDABLE_MACS = 1e9  # a picture; a fully convolutional net above it is observed on the next size


@dataclass(frozen=True)
class Signature:
    """One real input: `shape` of one sample batch, and which axis counts channels or features (None: none does).

    batch: samples per run; free_batch: the model takes any number of them.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    axis: int | None
    free_batch: bool


def read_signature(model: ir.Model, run: Callable[[Feed], object], seed: int) -> Signature | str:
    """The signature of a model with a single float input, or the reason why inputs cannot be made for it."""
    inputs = list(model.graph.inputs)
    others = [(v.name, v.dtype) for v in inputs if v.dtype is not None and v.dtype != ir.DataType.FLOAT]
    if others:
        return f"input {others[0][0]} holds {others[0][1].name.lower()}: no prior for it"
    if len(inputs) != 1:
        return f"{len(inputs)} inputs: state carried between calls has no known distribution"
    value = inputs[0]
    dims = list(value.shape) if value.shape is not None else []
    if len(dims) < 2:
        return f"input {value.name} has {len(dims)} dimensions"
    if 0 in dims:
        return f"input {value.name} holds no elements"
    axis = _picture_axis(dims)
    shape = _working_shape(model, value, dims, axis, run, seed)
    if shape is None:
        return "the model runs on no input of the shapes that were tried"
    kind = "picture" if axis is not None else "features"
    return Signature(
        str(value.name), kind, shape, axis if axis is not None else _feature_axis(dims), not isinstance(dims[0], int)
    )


def _picture_axis(dims: Sequence[object]) -> int | None:
    """1 for N×C×H×W, 3 for N×H×W×C, None when it is no picture."""
    if len(dims) != 4:
        return None
    for axis, plane in ((1, dims[2:]), (3, dims[1:3])):
        sides = [d for d in plane if isinstance(d, int)]
        small = any(d < _SMALLEST_PICTURE for d in sides)
        if dims[axis] in _PICTURE_CHANNELS and not small and (not sides or max(sides) <= _LONGEST_ASPECT * min(sides)):
            return axis
    return None


def _feature_axis(dims: Sequence[object]) -> int | None:
    """The shortest fixed axis after the first: coefficients of a spectrum, channels of a signal."""
    fixed = [(d, -i) for i, d in enumerate(dims) if i and isinstance(d, int) and d > 1]
    return -min(fixed)[1] if fixed else None


def _working_shape(
    model: ir.Model, value: ir.Value, dims: Sequence[object], axis: int | None, run: Callable[[Feed], object], seed: int
) -> tuple[int, ...] | None:
    working = []
    if axis is not None:
        sizes = _PICTURE_SIZES if any(not isinstance(d, int) for d in dims[1:]) else _PICTURE_SIZES[:1]
        for size in sizes:
            shape = tuple(d if isinstance(d, int) else (1 if i == 0 else size) for i, d in enumerate(dims))
            try:
                run({str(value.name): np.zeros(shape, np.float32)})
            except Exception:  # what a runtime raises for a shape it does not take is its own affair
                continue
            working.append(shape)
            if summary(with_shapes(model, {str(value.name): shape})).macs / shape[0] <= _AFFORDABLE_MACS:
                return shape
        if working:
            return min(working, key=math.prod)
    try:
        return working_feeds(model, run, seed)[0][str(value.name)].shape
    except ModelError:
        return None

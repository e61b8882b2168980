"""Integer weights and biases as free functions on arrays: per-channel symmetric int8, bias int32 in the accumulator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.quantization import Encoding, integer_range

__all__ = ["bias_levels", "symmetric_levels", "weight_encoding"]

Array = npt.NDArray[np.generic]

# |bias| in levels stays below this, so that the int32 accumulator keeps its upper bit for the products
_BIAS_LIMIT = float(2**30)


def weight_encoding(
    weight: Array, axis: int | None, dtype: ir.DataType, input_scale: float, bias: Array | None = None
) -> Encoding:
    """Scale = max|w| / highest level, per slice along `axis` (per tensor when None).

    A channel whose weights are tiny beside its bias would need a bias beyond int32; its scale is raised to
    |b| / (s_x·2³⁰), where its weights round to 0 and lose nothing that the output could show.
    """
    _, highest = integer_range(dtype)
    values = np.abs(np.asarray(weight, np.float64))
    if axis is None:
        magnitude = np.asarray(values.max(initial=0.0))
    else:
        magnitude = values.max(axis=tuple(i for i in range(values.ndim) if i != axis), initial=0.0)
    if bias is not None and input_scale > 0:
        floor = np.abs(np.asarray(bias, np.float64)) / (input_scale * _BIAS_LIMIT) * highest
        magnitude = np.maximum(magnitude, floor if axis is not None else floor.max(initial=0.0))
    return Encoding.symmetric(magnitude, dtype, axis)


def symmetric_levels(weight: Array, encoding: Encoding) -> Array:
    """`clip(rint(w / s), −q, q)`: the lowest level of the type is not used, so that −w is a level whenever w is."""
    _, highest = integer_range(encoding.dtype)
    levels: Array = np.maximum(encoding.quantize(weight), -highest).astype(encoding.dtype.numpy())
    return levels


def bias_levels(bias: Array, scale: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """`rint(b / (s_x·s_w))` as int32, computed in float64."""
    levels = np.rint(np.asarray(bias, np.float64) / np.asarray(scale, np.float64))
    bound = float(2**31 - 1)
    return np.clip(levels, -bound, bound).astype(np.int32)

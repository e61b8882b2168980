"""Integer weights and biases as free functions on arrays: symmetric levels of 8 bits or fewer, bias int32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.quantization import Encoding, integer_range
from .clipping import mse_magnitude
from .squant import squant

__all__ = [
    "FORMATS",
    "WeightFormat",
    "bias_levels",
    "rounded_before",
    "symmetric_levels",
    "weight_encoding",
    "weight_levels",
]

Array = npt.NDArray[np.generic]

# |bias| in levels stays below this, so that the int32 accumulator keeps its upper bit for the products
_BIAS_LIMIT = float(2**30)

# name -> lowest and highest level; −w is a level whenever w is where levels are plenty
FORMATS: Mapping[str, tuple[int, int]] = {
    "int8": (-127, 127),
    "int4": (-8, 7),
    "int3": (-4, 3),
    "int2": (-2, 1),
    "ternary": (-1, 1),
}


@dataclass(frozen=True)
class WeightFormat:
    """How weights become levels: range of levels, one scale per channel or tensor, rounding and clipping.

    Levels are stored as int8 whatever their number, so that every int8 kernel runs them.
    """

    levels: tuple[int, int] = FORMATS["int8"]
    per_channel: bool = True
    rounding: str = "nearest"
    clipping: str = "none"


def weight_encoding(
    weight: Array,
    axis: int | None,
    dtype: ir.DataType,
    input_scale: float,
    bias: Array | None = None,
    levels: tuple[int, int] | None = None,
    clipping: str = "none",
) -> Encoding:
    """Scale = max|w| / highest level, per slice along `axis` (per tensor when None).

    levels: lowest and highest, when fewer than the type holds; clipping: `mse` takes a smaller scale where the mean
    squared error is less. A channel whose weights are tiny beside its bias would need a bias beyond int32; its scale
    is raised to |b| / (s_x·2³⁰), where its weights round to 0 and lose nothing that the output could show.
    """
    _, most = integer_range(dtype)
    low, high = levels or (-most, most)
    values = np.abs(np.asarray(weight, np.float64))
    if clipping == "mse":
        magnitude = mse_magnitude(weight, axis, low, high)
    elif axis is None:
        magnitude = np.asarray(values.max(initial=0.0))
    else:
        magnitude = values.max(axis=tuple(i for i in range(values.ndim) if i != axis), initial=0.0)
    if bias is not None and input_scale > 0:
        floor = np.abs(np.asarray(bias, np.float64)) / (input_scale * _BIAS_LIMIT) * high
        magnitude = np.maximum(magnitude, floor if axis is not None else floor.max(initial=0.0))
    return Encoding.symmetric(magnitude if high == most else magnitude * (most / high), dtype, axis)


def rounded_before(value: ir.Value, weight: Array, axis: int) -> Encoding | None:
    """The encoding that an earlier pass rounded these weights to; None without one, or when they changed since."""
    encoding = Encoding.of(value)
    if encoding is None or encoding.axis != axis or encoding.scale.shape != (weight.shape[axis],):
        return None
    on_grid = encoding.dequantize(encoding.quantize(weight))
    return encoding if np.allclose(on_grid, weight, rtol=1e-5, atol=0) else None


def symmetric_levels(weight: Array, encoding: Encoding, levels: tuple[int, int] | None = None) -> Array:
    """`clip(rint(w / s), low, high)`; without `levels` −q…q: −w is a level whenever w is."""
    _, most = integer_range(encoding.dtype)
    low, high = levels or (-most, most)
    found: Array = np.clip(encoding.quantize(weight), low, high).astype(encoding.dtype.numpy())
    return found


def weight_levels(weight: Array, encoding: Encoding, axis: int, form: WeightFormat) -> Array:
    """The levels of a weight with output channels on `axis`, rounded as the format asks."""
    if form.rounding == "nearest":
        return symmetric_levels(weight, encoding, form.levels)
    rows = np.moveaxis(np.asarray(weight), axis, 0)
    found: Array = np.moveaxis(squant(rows, encoding.scale, *form.levels), 0, axis).astype(encoding.dtype.numpy())
    return np.ascontiguousarray(found)


def bias_levels(bias: Array, scale: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """`rint(b / (s_x·s_w))` as int32, computed in float64."""
    levels = np.rint(np.asarray(bias, np.float64) / np.asarray(scale, np.float64))
    bound = float(2**31 - 1)
    return np.clip(levels, -bound, bound).astype(np.int32)

"""`Encoding`: how real numbers are held as integers, x ≈ (q − zero_point) · scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from . import metadata

__all__ = ["Encoding", "integer_range"]

Array = npt.NDArray[np.generic]

# integer type -> (lowest, highest) level, and the symmetric lowest level that int8 weights use
_RANGES = {
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT16: (0, 65535),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT32: (-(2**31), 2**31 - 1),
}


def integer_range(dtype: ir.DataType) -> tuple[int, int]:
    """Lowest and highest level of an integer type."""
    return _RANGES[dtype]


@dataclass(frozen=True, eq=False)
class Encoding:
    """Scale (float32, > 0) and zero point: 0-d arrays per tensor (`axis` None), 1-d arrays per slice along `axis`.

    levels: how far the lowest level in use is below the type's highest, where that is less than the type holds; at the
    upper end rounding saturates by itself, at the lower one where nothing is below zero.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int32]
    dtype: ir.DataType
    axis: int | None = None
    levels: int | None = None

    @classmethod
    def affine(cls, low: float, high: float, dtype: ir.DataType, levels: int | None = None) -> Encoding:
        """Per-tensor asymmetric: the range is widened to hold 0 exactly, scale = (high − low) / levels."""
        lowest, highest = integer_range(dtype)
        lowest = lowest if levels is None else highest - levels
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        scale = np.float32((high - low) / (highest - lowest))
        if not np.isfinite(scale) or scale < np.finfo(np.float32).tiny:
            scale = np.float32(1.0)
        zero = np.clip(np.rint(lowest - low / float(scale)), lowest, highest)
        return cls(np.asarray(scale, np.float32), np.asarray(zero, np.int32), dtype, levels=levels)

    @property
    def reach(self) -> tuple[float, float]:
        """Lowest and highest number it can hold, per tensor."""
        lowest, highest = integer_range(self.dtype)
        lowest = lowest if self.levels is None else highest - self.levels
        zero, scale = float(self.zero_point), float(self.scale)
        return (lowest - zero) * scale, (highest - zero) * scale

    @classmethod
    def symmetric(cls, magnitude: Array | float, dtype: ir.DataType, axis: int | None = None) -> Encoding:
        """Zero point 0, scale = magnitude / highest level; a magnitude of 0 (a dead channel) gets scale 1."""
        _, highest = integer_range(dtype)
        scale = np.asarray(np.asarray(magnitude, np.float64) / highest, np.float32)
        scale = np.where(np.isfinite(scale) & (scale >= np.finfo(np.float32).tiny), scale, np.float32(1.0))
        return cls(np.asarray(scale, np.float32), np.zeros(scale.shape, np.int32), dtype, axis)

    @property
    def span(self) -> int:
        """The largest |level − zero point|, per tensor."""
        low, high = integer_range(self.dtype)
        return int(max(high - self.zero_point, self.zero_point - low))

    def quantize(self, x: Array) -> Array:
        """`clip(rint(x / scale) + zero_point)`, float32, round half to even; result in the integer type."""
        lowest, highest = integer_range(self.dtype)
        scale, zero = self._along(x.ndim)
        q = np.rint(np.asarray(x, np.float32) / scale) + zero.astype(np.float32)
        levels: Array = np.clip(q, lowest, highest).astype(self.dtype.numpy())
        return levels

    def dequantize(self, q: Array) -> npt.NDArray[np.float32]:
        """`(q − zero_point) · scale` in float32."""
        scale, zero = self._along(q.ndim)
        return (q.astype(np.int32) - zero).astype(np.float32) * scale

    def _along(self, ndim: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        if self.axis is None:
            return self.scale, self.zero_point
        shape = [1] * ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape)

    def same_as(self, other: Encoding) -> bool:
        """Equal to the bit, so that integers can pass from one to the other unchanged."""
        return (
            self.dtype == other.dtype
            and self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def attach(self, value: ir.Value) -> None:
        """Leave the encoding on a value for the pass that places Q/DQ."""
        fact: dict[str, Any] = {"scale": self.scale, "zero_point": self.zero_point}
        fact |= {"dtype": self.dtype.name, "axis": self.axis}
        metadata.put(value, metadata.ENCODING, fact)

    @classmethod
    def of(cls, value: ir.Value) -> Encoding | None:
        """The encoding left on a value, or None."""
        fact = metadata.get(value, metadata.ENCODING)
        if fact is None:
            return None
        scale, zero = np.asarray(fact["scale"], np.float32), np.asarray(fact["zero_point"], np.int32)
        return cls(scale, zero, ir.DataType[fact["dtype"]], fact["axis"])

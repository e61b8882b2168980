"""`TosaWriter`: tensors and operators of a TOSA 1.0 graph through the serializer of Arm's tosa-tools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["TosaWriter", "multiplier_and_shift"]

Array = npt.NDArray[Any]
_BITS = 31
_LONGEST_SHIFT = 62


def multiplier_and_shift(scale: float) -> tuple[int, int]:
    """(m, s) with scale ≈ m / 2ˢ, 2³⁰ ≤ m < 2³¹ unless the shift would be too long."""
    mantissa, exponent = math.frexp(scale)
    multiplier = round(mantissa * (1 << _BITS))
    if multiplier == 1 << _BITS:
        multiplier, exponent = multiplier >> 1, exponent + 1
    shift = _BITS - exponent
    if shift > _LONGEST_SHIFT:
        multiplier, shift = multiplier >> (shift - _LONGEST_SHIFT), _LONGEST_SHIFT
    if shift < 2:
        raise ValueError(f"a scale of {scale} is beyond what RESCALE can express")
    return multiplier, shift


class TosaWriter:
    """Values are named by the serializer; the caller keeps the names. Constants of equal contents are shared."""

    def __init__(self) -> None:
        from serializer import tosa_serializer as tosa

        self._tosa: Any = tosa
        self.types: Any = tosa.DType
        self.op: Any = tosa.TosaOp.Op()
        self.graph: Any = tosa.TosaSerializer(
            ".", tosa_version_major=1, tosa_version_minor=0, tosa_version_patch=0, tosa_version_draft=False
        )
        self._constants: dict[tuple[bytes, tuple[int, ...], int], str] = {}

    def attribute(self, kind: str, *values: Any) -> Any:
        """The attribute table of an operator."""
        made = self._tosa.TosaSerializerAttribute()
        getattr(made, f"{kind}Attribute")(*values)
        return made

    def input(self, shape: Sequence[int]) -> str:
        """An int8 input."""
        return str(self.graph.addPlaceholder(list(shape), self.types.INT8, None).name)

    def constant(self, array: Array, dtype: int) -> str:
        """A constant tensor."""
        key = (array.tobytes(), array.shape, dtype)
        if key not in self._constants:
            self._constants[key] = self.graph.addConst(list(array.shape), dtype, array).name
        return self._constants[key]

    def int8(self, *values: int) -> str:
        """A constant of one or more int8 levels, such as a zero point."""
        return self.constant(np.array(values, np.int8), self.types.INT8)

    def int32(self, *values: int) -> str:
        """A constant of int32 numbers."""
        return self.constant(np.array(values, np.int32), self.types.INT32)

    def shape(self, values: Sequence[int]) -> str:
        """A constant shape."""
        return str(self.graph.addConst([len(values)], self.types.SHAPE, [int(v) for v in values]).name)

    def add(
        self, op: int, inputs: Sequence[str], shape: Sequence[int], attribute: Any, dtype: int | None = None
    ) -> str:
        """Append an operator; its result is int8 unless told otherwise."""
        kind = self.types.INT8 if dtype is None else dtype
        result = self.graph.addIntermediate([int(n) for n in shape], kind)
        self.graph.addOperator(op, list(inputs), [result.name], attribute)
        return str(result.name)

    def rescale(
        self, x: str, shape: Sequence[int], scales: Array | float, zeros: tuple[int, int], types: tuple[int, int]
    ) -> str:
        """y = round((x − z_x) · scale) + z_y, one scale or one for each channel; single rounding."""
        from tosa.RoundingMode import RoundingMode

        pairs = [multiplier_and_shift(float(s)) for s in np.atleast_1d(np.asarray(scales, np.float64))]
        multipliers = self.constant(np.array([m for m, _ in pairs], np.int32), self.types.INT32)
        shifts = self.constant(np.array([s for _, s in pairs], np.int8), self.types.INT8)
        points = [self.int8(z) if t == self.types.INT8 else self.int32(z) for z, t in zip(zeros, types, strict=True)]
        attribute = self.attribute("Rescale", True, RoundingMode.SINGLE_ROUND, len(pairs) > 1, False, False)
        return self.add(self.op.RESCALE, [x, multipliers, shifts, *points], shape, attribute, types[1])

    def clamp(self, x: str, shape: Sequence[int], low: int, high: int) -> str:
        """min(max(x, low), high) on int8 levels."""
        ends = [np.array([level], np.int8).tobytes() for level in (low, high)]
        return self.add(self.op.CLAMP, [x], shape, self.attribute("Clamp", self.graph.builder, *ends, 1))

    def finish(self, outputs: Sequence[tuple[str, Sequence[int]]]) -> bytes:
        """The serialized graph with these results, in order."""
        for name, shape in outputs:
            result = self.graph.addOutput([int(n) for n in shape], self.types.INT8)
            self.graph.addOperator(self.op.IDENTITY, [name], [result.name], self.attribute("Identity"))
        return bytes(self.graph.serialize())

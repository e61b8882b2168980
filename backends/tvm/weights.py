"""Constant weights of products with float operands: numbers, or 8-bit levels that stay so in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.graph import Array, constant
from ...ir.integer.encodings import integer_constant
from .formula import Formula
from .frontend import LEVEL_PRODUCT

__all__ = ["Weights", "directions", "matrix"]


@dataclass(frozen=True)
class Weights:
    """A matrix [K, N]: its numbers, or (levels − zeros) ∘ scales with zeros and scales [N] in float32."""

    levels: Array
    zeros: Array | None = None
    scales: Array | None = None

    def product(self, f: Formula, x: ir.Value, first: int = 0, stop: int | None = None) -> ir.Value:
        """x · W of columns first ≤ i < stop; scales are applied to the sums."""
        levels = self.levels[:, first:stop]
        if self.zeros is None or self.scales is None:
            return f.op("MatMul", x, f.constant(levels))
        product = f.op(LEVEL_PRODUCT, x, f.constant(levels), f.constant(self.zeros[first:stop]))
        return f.op("Mul", product, f.constant(self.scales[first:stop]))


def matrix(value: ir.Value | None) -> Weights | None:
    """The dequantized constant [K, N] behind a value, one scale a column or one for all; None for anything else."""
    found = _levels(value, 1)
    return None if found is None or found[0].ndim != 2 else Weights(*found)


def directions(value: ir.Value | None) -> Sequence[Weights] | None:
    """Weights [directions, N, K] of a recurrent layer as a matrix [K, N] each; None where they are not constant."""
    array = constant(value)
    if array is not None:
        return [Weights(one.T) for one in array]
    found = _levels(value, 1)
    return None if found is None else [Weights(one.T, *found[1:]) for one in found[0]]


def _levels(value: ir.Value | None, axis: int) -> tuple[Array, Array, Array] | None:
    """8-bit levels with a zero point and a scale for each position along an axis."""
    operand = integer_constant(value)
    if operand is None or operand.constant is None or operand.encoding is None or operand.is_wide:
        return None
    levels, encoding = operand.constant, operand.encoding
    if encoding.axis not in (None, axis) or levels.ndim <= axis:
        return None
    zeros, scales = (
        np.broadcast_to(array, levels.shape[axis : axis + 1]).astype(np.float32)
        for array in (encoding.zero_point, encoding.scale)
    )
    return levels, zeros, scales

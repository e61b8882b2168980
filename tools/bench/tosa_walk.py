"""`Walk`: the TOSA graph under construction and the value that holds each tensor, with what every operator asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...targets.tflite import Operation, Tensor
from .tosa_writer import TosaWriter

__all__ = ["Walk", "first", "integers", "reshaped", "scale", "sliced", "zero"]

Array = npt.NDArray[Any]
_FUSED: Mapping[str, tuple[float, float]] = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


@dataclass
class Walk:
    """names: the TOSA value that holds each tensor."""

    tosa: TosaWriter = field(default_factory=TosaWriter)
    names: dict[Tensor, str] = field(default_factory=dict)

    def of(self, tensor: Tensor | None) -> str:
        """The value of a tensor; constants are written when they are first asked for."""
        assert tensor is not None
        if tensor not in self.names:
            assert tensor.data is not None
            self.names[tensor] = self.tosa.constant(np.ascontiguousarray(tensor.data), self.tosa.types.INT8)
        return self.names[tensor]

    def give(self, operation: Operation, value: str) -> None:
        """The result, clipped by the operator's fused activation."""
        result = operation.outputs[0]
        ends = _FUSED.get(str(operation.options.get("fusedActivationFunction", "NONE")))
        if ends is not None:
            low, high = (int(np.clip(np.rint(e / scale(result)) + zero(result), -128, 127)) for e in ends)
            value = self.tosa.clamp(value, result.shape, low, high)
        self.names[result] = value


def scale(tensor: Tensor) -> float:
    """The one scale of an activation."""
    assert tensor.scale is not None
    return float(tensor.scale)


def zero(tensor: Tensor) -> int:
    """The one zero point of an activation."""
    assert tensor.zero_point is not None
    return int(tensor.zero_point)


def first(operation: Operation) -> Tensor:
    """The first operand."""
    found = operation.inputs[0]
    assert found is not None
    return found


def integers(tensor: Tensor | None) -> list[int]:
    """The contents of a constant of numbers."""
    assert tensor is not None and tensor.data is not None
    return [int(v) for v in np.ravel(tensor.data)]


def reshaped(walk: Walk, value: str, shape: Any) -> str:
    """A value under another shape."""
    tosa = walk.tosa
    return tosa.add(tosa.op.RESHAPE, [value, tosa.shape(list(shape))], shape, tosa.attribute("Reshape"))


def sliced(walk: Walk, value: str, starts: list[int], sizes: list[int]) -> str:
    """A part of a value."""
    tosa = walk.tosa
    return tosa.add(tosa.op.SLICE, [value, tosa.shape(starts), tosa.shape(sizes)], sizes, tosa.attribute("Slice"))

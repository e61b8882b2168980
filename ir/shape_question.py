"""What a shape rule is asked: a node and what is known about its inputs; and the arithmetic that rules share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from .dimension import Dimension, Expression, at_least, is_minimum_with, minimum, opaque
from .graph import attribute

__all__ = ["Contents", "Question", "Shape", "broadcast", "normalised_axes", "slice_bounds"]

Shape = tuple[Dimension, ...]
Contents = npt.NDArray[Any]  # object array: int, bool or Expression per element, in the shape of the value


@dataclass(frozen=True)
class Question:
    """One node with what is known about its inputs."""

    node: ir.Node
    version: int
    shapes: Sequence[Shape | None]
    contents: Sequence[Contents | None]

    def shape(self, index: int) -> Shape | None:
        return self.shapes[index] if index < len(self.shapes) else None

    def list(self, index: int, name: str) -> list[Dimension] | None:
        """A list given as an input in newer opsets and as an attribute in older ones."""
        if name in self.node.attributes:
            return list(attribute(self.node, name))  # type: ignore[call-overload, no-any-return]
        found = self.contents[index] if index < len(self.contents) else None
        return None if found is None else list(found.reshape(-1))

    def has(self, index: int, name: str) -> bool:
        given = index < len(self.node.inputs) and self.node.inputs[index] is not None
        return given or name in self.node.attributes

    def attr(self, name: str, default: Any = None) -> Any:
        return attribute(self.node, name, default)

    def unknown(self, axis: int) -> Dimension:
        """A size nothing is known about but where it is."""
        return opaque(f"{self.node.outputs[0].name}.{axis}")


def broadcast(a: Dimension, b: Dimension) -> Dimension | None:
    """The size two sizes broadcast to; None when it is not known."""
    if a == b or b == 1:
        return a
    if a == 1 or is_minimum_with(a, b):  # the smaller one is the larger one or 1, or the node is invalid
        return b
    if is_minimum_with(b, a):
        return a
    if isinstance(a, Expression):
        return None if isinstance(b, Expression) else b
    return a


def normalised_axes(axes: Sequence[Dimension], rank: int) -> list[int] | None:
    """Axes as numbers 0 … rank−1; None when one is not a number or out of range."""
    if not all(isinstance(a, int) and -rank <= a < rank for a in axes):
        return None
    return [int(a) % rank for a in axes]  # type: ignore[arg-type]


def slice_bounds(start: Dimension, end: Dimension, step: int, size: Dimension) -> tuple[Dimension, Dimension] | None:
    """Start and end of a slice with step ≥ 1 as positions 0 … size; None when they are not known."""
    if step < 1:
        return None
    bounds: list[Dimension] = []
    for given in (start, end):
        at = given
        if isinstance(at, int) and at < 0:
            at = size + at
            if isinstance(at, int):
                at = max(at, 0)
        if isinstance(at, int) and at == 0:
            bounds.append(at)
        elif at_least(at, size) or (isinstance(given, int) and given >= 2**31 - 1):
            bounds.append(size)
        elif at_least(size, at) and at_least(at, 0):
            bounds.append(at)
        elif bounds == [0] and isinstance(at, Expression) and at_least(at, 0):
            bounds.append(minimum(at, size))
            return 0, bounds[1]
        else:
            return None
    low, high = bounds
    if low == 0 and high is size:
        return 0, size
    return (low, high) if at_least(high, low) else None

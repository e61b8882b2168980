"""Where values lie in memory, and how kernels index them: `Located`, `View`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Located", "View", "channels_last", "inside", "row_major"]

Index = Sequence[Any]


def row_major(rank: int) -> tuple[int, ...]:
    """The layout of a value as ONNX sees it."""
    return tuple(range(rank))


def channels_last(rank: int) -> tuple[int, ...]:
    """The layout of integer feature maps: NHWC for four dimensions, as ONNX sees it for others."""
    return (0, 2, 3, 1) if rank == 4 else row_major(rank)


def inside(h: Any, w: Any, pads: Sequence[int], size: Sequence[int]) -> list[Any]:
    """Conditions that a place of a padded map is not in its border; none along an axis without one.

    pads: top, left, bottom, right; size: rows and columns of the map itself.
    """
    (top, left, bottom, right), (rows, columns) = pads, size
    conditions = [h >= top, h < top + rows] if top or bottom else []
    return [*conditions, w >= left, w < left + columns] if left or right else conditions


@dataclass(frozen=True)
class Located:
    """Where a value lies: a program tensor, its logical shape and type, and which logical axis each stored axis is."""

    tensor: str
    shape: tuple[int, ...]
    dtype: str
    layout: tuple[int, ...]

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape in memory."""
        return tuple(self.shape[axis] for axis in self.layout)

    def lies_as(self, layout: Sequence[int]) -> bool:
        """The bytes are in the order of `layout` (axes of size 1 lie anywhere)."""
        return [a for a in self.layout if self.shape[a] != 1] == [a for a in layout if self.shape[a] != 1]


@dataclass(frozen=True)
class View:
    """An operand inside a kernel, indexed by its logical axes whatever its layout."""

    place: Located
    data: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.place.shape

    def __call__(self, *index: Any) -> Any:
        return self.data(*(index[axis] for axis in self.place.layout))

    def broadcast(self, index: Index) -> Any:
        """The element that numpy's broadcasting pairs with `index` of a larger shape."""
        own = index[len(index) - len(self.shape) :]
        return self(*(0 if extent == 1 else i for extent, i in zip(self.shape, own, strict=True)))

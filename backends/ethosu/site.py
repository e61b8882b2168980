"""`Site`: one step of the plan under emission: its operands in the axis order it wants, its results, new operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.names import Names
from ...ir.quantization import Encoding, integer_range
from ...targets.tflite import Network, Operation, Tensor

__all__ = ["NHWC", "Located", "NoForm", "Site", "row_major", "signed"]

Array = npt.NDArray[np.generic]
Axes = tuple[int, ...]
NHWC: Axes = (0, 2, 3, 1)
_SIGNED = {ir.DataType.UINT8: (ir.DataType.INT8, 128), ir.DataType.UINT16: (ir.DataType.INT16, 32768)}


class NoForm(Exception):
    """Why a step has no TFLite form of its own."""


def row_major(rank: int) -> Axes:
    """The axis order of ONNX itself."""
    return tuple(range(rank))


def signed(encoding: Encoding) -> tuple[Encoding, int]:
    """The same levels in a signed type, and what was subtracted from them: TFLite has no unsigned kernels here."""
    if encoding.dtype not in _SIGNED:
        return encoding, 0
    dtype, offset = _SIGNED[encoding.dtype]
    return Encoding(encoding.scale, encoding.zero_point - offset, dtype, encoding.axis), offset


@dataclass(frozen=True, eq=False)
class Located:
    """Where a value lies: a tensor, and for each of its axes the axis of the ONNX value that it holds."""

    tensor: Tensor
    axes: Axes

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that ONNX sees."""
        sizes = dict(zip(self.axes, self.tensor.shape, strict=True))
        return tuple(sizes[i] for i in range(len(self.axes)))


@dataclass
class Site:
    """nodes: ONNX nodes that the operations made here serve. names: of tensors."""

    network: Network
    names: Names
    operands: list[Located] = field(default_factory=list)
    nodes: tuple[str, ...] = ()
    stem: str = "value"
    results: list[Located] = field(default_factory=list)

    def tensor(
        self,
        shape: Sequence[int],
        like: Tensor | None = None,
        *,
        encoding: Encoding | None = None,
        dtype: str = "float32",
        name: str = "",
    ) -> Tensor:
        """A new tensor, with the quantization of `like` or of `encoding`, else of a plain type."""
        made = Tensor(self.names.free(name or self.stem), tuple(int(n) for n in shape), dtype)
        if like is not None:
            made.dtype, made.scale, made.zero_point, made.axis = like.dtype, like.scale, like.zero_point, like.axis
        elif encoding is not None:
            encoding, _ = signed(encoding)
            made.dtype = encoding.dtype.numpy().name
            made.scale, made.zero_point = encoding.scale, encoding.zero_point.astype(np.int64)
        return made

    def constant(self, data: Array, name: str = "", *, scale: Any = None, zero: Any = 0, axis: int = 0) -> Tensor:
        """A constant tensor; symmetric or with a zero point where a scale is given."""
        made = Tensor(
            self.names.free(name or f"{self.stem}_constant"), data.shape, data.dtype.name, data=data, axis=axis
        )
        if scale is not None:
            made.scale, made.zero_point = np.asarray(scale, np.float32), np.asarray(zero, np.int64)
        return made

    def integers(self, values: Sequence[Any], name: str = "") -> Tensor:
        """A constant int32 tensor: axes, shapes, paddings."""
        return self.constant(np.asarray(values, np.int32), name)

    def add(self, code: str, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor], **options: Any) -> None:
        """Append an operation."""
        self.network.operations.append(Operation(code, tuple(inputs), tuple(outputs), options, self.nodes))

    def apply(self, code: str, inputs: Sequence[Tensor | None], shape: Sequence[int], **options: Any) -> Tensor:
        """Append an operation whose result is quantized as its first input; return the result."""
        result = self.tensor(shape, inputs[0])
        self.add(code, inputs, [result], **options)
        return result

    def operand(self, i: int, axes: Axes | None = None) -> Tensor:
        """The i-th operand in the given axis order (row-major when None)."""
        place = self.operands[i]
        return self.arranged(place, row_major(len(place.axes)) if axes is None else axes)

    def arranged(self, place: Located, axes: Axes) -> Tensor:
        """The tensor of a value in another axis order: a reshape where only axes of one element move."""
        if place.axes == axes:
            return place.tensor
        if place.tensor.data is not None:
            perm = [place.axes.index(a) for a in axes]
            moved = self.tensor([place.tensor.shape[p] for p in perm], place.tensor, name=place.tensor.name)
            moved.data = place.tensor.data.transpose(perm)
            return moved
        sizes = place.shape
        shape = [sizes[a] for a in axes]
        if [a for a in place.axes if sizes[a] > 1] == [a for a in axes if sizes[a] > 1]:
            return self.reshaped(place.tensor, shape)
        perm = [place.axes.index(a) for a in axes]
        return self.apply("TRANSPOSE", [place.tensor, self.integers(perm)], shape)

    def reshaped(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """The same elements in row-major order under another shape."""
        if tuple(shape) == tensor.shape:
            return tensor
        return self.apply("RESHAPE", [tensor, self.integers(shape)], shape, newShape=list(shape))

    def give(self, tensor: Tensor, axes: Axes | None = None) -> None:
        """The next result of the step."""
        self.results.append(Located(tensor, row_major(len(tensor.shape)) if axes is None else axes))


def levels(encoding: Encoding) -> tuple[int, int]:
    """Lowest and highest level of an encoding's signed type."""
    return integer_range(signed(encoding)[0].dtype)

"""A TFLite network as plain data: what an emitter makes, a serializer writes, and an NPU's contract judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Network", "Operation", "Tensor"]

Array = npt.NDArray[np.generic]


@dataclass(eq=False)
class Tensor:
    """One tensor: physical shape, numpy dtype name, quantization (scale None: none), and its data when constant.

    scale, zero_point: one number, or one for each slice along `axis`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: npt.NDArray[np.float32] | None = None
    zero_point: npt.NDArray[np.int64] | None = None
    axis: int = 0
    data: Array | None = None

    @property
    def encoding(self) -> tuple[bytes, bytes] | None:
        """Equal for two tensors exactly when integers can pass between them unchanged."""
        if self.scale is None or self.zero_point is None:
            return None
        return self.scale.tobytes(), self.zero_point.astype(np.int64).tobytes()


@dataclass(eq=False)
class Operation:
    """One TFLite operator: the builtin's name, its tensors (None: left out), its options, the ONNX nodes it serves."""

    code: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()


@dataclass
class Network:
    """Operations in order, the tensors that are given and asked for, and texts stored beside them."""

    operations: list[Operation] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    metadata: dict[str, bytes] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """Every tensor once, in the order of first use."""
        found = dict.fromkeys(self.inputs)
        for operation in self.operations:
            found |= dict.fromkeys(t for t in (*operation.inputs, *operation.outputs) if t is not None)
        return list(found | dict.fromkeys(self.outputs))

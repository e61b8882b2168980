"""`Formula`: float nodes written as calls, lowered together; what recurrent cells are stated in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["OPSET", "Formula"]

OPSET = 18  # what the nodes mean
Array = npt.NDArray[np.generic]


class Formula:
    """Nodes on program tensors, under the name of the node that they stand for."""

    def __init__(self, node: ir.Node) -> None:
        self._name = node.name
        self._nodes: list[ir.Node] = []
        self._inputs: dict[str, str] = {}
        self._count = 0

    def tensor(self, tensor: str) -> ir.Value:
        """A tensor of the program as an operand."""
        value = self._value()
        self._inputs[str(value.name)] = tensor
        return value

    def constant(self, array: Any, dtype: str | None = None) -> ir.Value:
        """A constant operand."""
        value = self._value()
        value.const_value = ir.tensor(np.ascontiguousarray(array, dtype), name=value.name)
        return value

    def op(self, kind: str, *operands: ir.Value, **attributes: Any) -> ir.Value:
        """The result of one operator."""
        node = ir.node(kind, operands, attributes=attributes, outputs=[self._value()], name=self._name)
        self._nodes.append(node)
        return node.outputs[0]

    def cut(self, value: ir.Value, axis: int, start: int, stop: int) -> ir.Value:
        """Positions start ≤ i < stop along one axis."""
        bounds = [self.constant([n], "int64") for n in (start, stop, axis)]
        return self.op("Slice", value, *bounds)

    def lower(self, walk: Lowering, results: Sequence[ir.Value]) -> list[str]:
        """Append the calls that compute the results, and return their tensors."""
        return walk.compute(self._nodes, self._inputs, results)

    def _value(self) -> ir.Value:
        self._count += 1
        return ir.Value(name=f"v{self._count}")

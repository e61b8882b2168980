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
    """Nodes that stand for another node, under its name; values are named after its first output.

    version: of the operator set, where the nodes take their places in a model and are not lowered by `lower`.
    """

    def __init__(self, node: ir.Node, version: int = OPSET) -> None:
        self.nodes: list[ir.Node] = []
        self._node, self._version = node, version
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
        node = ir.node(kind, operands, attributes=attributes, outputs=[self._value()], name=self._node.name)
        self.nodes.append(node)
        return node.outputs[0]

    def reduce(self, kind: str, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """A reduction that keeps its axes, which are an input from some operator set on."""
        if self._version >= (13 if kind == "ReduceSum" else 18):
            return self.op(kind, value, self.constant(list(axes), "int64"), keepdims=1)
        return self.op(kind, value, axes=list(axes), keepdims=1)

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """The elements in another shape."""
        return self.op("Reshape", value, self.constant(list(shape), "int64"))

    def finish(self, result: ir.Value) -> list[ir.Node]:
        """The nodes, the last of which makes the output of the node that they stand for."""
        output = self._node.outputs[0]
        result.name, result.shape = output.name, output.shape
        return self.nodes

    def cut(self, value: ir.Value, axis: int, start: int, stop: int) -> ir.Value:
        """Positions start ≤ i < stop along one axis."""
        bounds = [self.constant([n], "int64") for n in (start, stop, axis)]
        return self.op("Slice", value, *bounds)

    def lower(self, walk: Lowering, results: Sequence[ir.Value]) -> list[str]:
        """Append the calls that compute the results, and return their tensors."""
        return walk.compute(self.nodes, self._inputs, results)

    def _value(self) -> ir.Value:
        self._count += 1
        return ir.Value(name=f"{self._node.outputs[0].name}.{self._count}")

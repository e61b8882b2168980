"""Models of quantized values, node by node, for the tests that compare compiled integers with the reference."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper as h
from planish.ir.shapes import infer

__all__ = ["QuantizedGraph", "normal_feeds"]


class QuantizedGraph:
    """A graph under construction; methods return the name of what they add.

    activation: the type of feature maps, from whose lowest level zero points are counted here.
    """

    def __init__(self, activation: type[np.generic]) -> None:
        self.activation, self.rng = activation, np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        """A float input of the model."""
        self._inputs.append(h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        return name

    def node(self, operator: str, operands: list[str], name: str, **attributes: Any) -> str:
        """The result of an operator."""
        self._nodes.append(h.make_node(operator, operands, [name], **attributes))
        return name

    def encoded(self, source: str, name: str, scale: float, zero: int) -> str:
        """A value behind Q and DQ."""
        level = np.array(zero + int(np.iinfo(self.activation).min), self.activation)  # type: ignore[type-var]
        both = [self._constant(f"{name}_s", np.float32(scale)), self._constant(f"{name}_z", level)]
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [source, *both], f"{name}_q"), *both], name)

    def weights(self, name: str, shape: tuple[int, ...]) -> str:
        """Random int8 filters [O, …] behind DQ, with a scale for each."""
        levels = self._constant(f"{name}_levels", self.rng.integers(-127, 128, shape).astype(np.int8))
        scale = self._constant(f"{name}_s", self.rng.uniform(0.005, 0.02, shape[0]).astype(np.float32))
        zero = self._constant(f"{name}_z", np.zeros(shape[0], np.int8))
        return self.node("DequantizeLinear", [levels, scale, zero], name, axis=0)

    def model(self, outputs: list[str]) -> ir.Model:
        """The model with these results."""
        made = [h.make_empty_tensor_value_info(name) for name in outputs]
        graph = h.make_graph(self._nodes, "quantized", self._inputs, made, self._constants)
        model: ir.Model = ir.from_proto(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9))
        infer(model)
        return model

    def _constant(self, name: str, array: object) -> str:
        self._constants.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return name


def normal_feeds(model: ir.Model, deviation: float = 1.5) -> dict[str, npt.NDArray[np.float32]]:
    """Random inputs of a model, the same ones every time."""
    rng = np.random.default_rng(1)
    shapes = {str(value.name): tuple(value.shape or ()) for value in model.graph.inputs}
    return {name: rng.normal(0, deviation, shape).astype(np.float32) for name, shape in shapes.items()}  # type: ignore[arg-type]

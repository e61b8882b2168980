"""Models of integer convolutions side by side, and random sizes of them, for the tests of what compiles them."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import strategies as st
from onnx import helper as h
from planish.ir.shapes import infer

__all__ = ["Conv", "pairs", "side_by_side"]


@dataclass(frozen=True)
class Conv:
    """One convolution; `group`: "one", "two" halves, or "depthwise" (then filters are a multiple of the channels).

    A number is the number of groups, each with so many channels and filters.
    """

    group: str | int
    channels: int
    filters: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    zero: int


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    """Two numbers in a range: of rows and of columns."""
    return st.tuples(st.integers(low, high), st.integers(low, high))


def side_by_side(convs: list[Conv], activation: type[np.generic]) -> ir.Model:
    """The convolutions side by side, each between quantized values of its own."""
    rng = np.random.default_rng(0)
    nodes, inputs, outputs, constants = [], [], [], []

    def constant(name: str, array: object) -> str:
        constants.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def encoded(source: str, name: str, scale: float, zero: int) -> str:
        both = [constant(f"{name}_s", np.float32(scale)), constant(f"{name}_z", activation(zero))]
        nodes.append(h.make_node("QuantizeLinear", [source, *both], [f"{name}_q"]))
        nodes.append(h.make_node("DequantizeLinear", [f"{name}_q", *both], [name]))
        return name

    for k, conv in enumerate(convs):
        copies = conv.group if isinstance(conv.group, int) else {"one": 1, "two": 2, "depthwise": 1}[conv.group]
        group = conv.channels if conv.group == "depthwise" else copies
        channels, filters = conv.channels * copies, conv.filters * copies
        filters = channels * (1 + conv.filters % 2) if conv.group == "depthwise" else filters
        shape = (filters, channels // group, *conv.kernel)
        zero = conv.zero + np.iinfo(activation).min
        inputs.append(h.make_tensor_value_info(f"x{k}", onnx.TensorProto.FLOAT, (1, channels, *conv.size)))
        x = encoded(f"x{k}", f"a{k}", 0.02, zero)
        w = constant(f"w{k}", rng.integers(-127, 128, shape).astype(np.int8))
        scale = constant(f"w{k}_s", rng.uniform(0.005, 0.02, filters).astype(np.float32))
        nodes.append(h.make_node("DequantizeLinear", [w, scale, constant(f"w{k}_z", np.zeros(filters, np.int8))],
                                 [f"d{k}"], axis=0))  # fmt: skip
        nodes.append(h.make_node("Conv", [x, f"d{k}"], [f"c{k}"], group=group, strides=conv.strides,
                                 dilations=conv.dilations, pads=conv.pads))  # fmt: skip
        outputs.append(h.make_empty_tensor_value_info(encoded(f"c{k}", f"y{k}", 0.2, zero)))
    graph = h.make_graph(nodes, "convolutions", inputs, outputs, constants)
    model: ir.Model = ir.from_proto(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9))
    infer(model)
    return model

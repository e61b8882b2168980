"""Models of integer convolutions side by side, and random sizes of them, for the tests of what compiles them."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from hypothesis import strategies as st

from .quantized_graph import QuantizedGraph

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
    graph, outputs = QuantizedGraph(activation), []
    for k, conv in enumerate(convs):
        copies = conv.group if isinstance(conv.group, int) else {"one": 1, "two": 2, "depthwise": 1}[conv.group]
        group = conv.channels if conv.group == "depthwise" else copies
        channels, filters = conv.channels * copies, conv.filters * copies
        filters = channels * (1 + conv.filters % 2) if conv.group == "depthwise" else filters
        x = graph.encoded(graph.input(f"x{k}", (1, channels, *conv.size)), f"a{k}", 0.02, conv.zero)
        w = graph.weights(f"w{k}", (filters, channels // group, *conv.kernel))
        window = {"strides": conv.strides, "dilations": conv.dilations, "pads": conv.pads}
        outputs.append(
            graph.encoded(graph.node("Conv", [x, w], f"c{k}", group=group, **window), f"y{k}", 0.2, conv.zero)
        )
    return graph.model(outputs)

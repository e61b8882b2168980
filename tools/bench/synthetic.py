"""Networks of known shape with random weights, for measuring speed where the pack has no model of that kind."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["squeezenet"]

# squeeze and expand filters of each fire module, "pool" between (SqueezeNet 1.1, Iandola et al. 2016)
_FIRES = ((16, 64), (16, 64), "pool", (32, 128), (32, 128), "pool", (48, 192), (48, 192), (64, 256), (64, 256))


class _Builder:
    """Appends layers to a graph; weights are drawn so that activations keep their variance."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []

    def node(self, op: str, inputs: list[ir.Value], **attributes: int | list[int]) -> ir.Value:
        node = ir.node(op, inputs, attributes, name=f"{op.lower()}{len(self.nodes)}")
        self.nodes.append(node)
        node.outputs[0].name = node.name
        return node.outputs[0]

    def conv(self, x: ir.Value, channels: int, filters: int, size: int, stride: int = 1) -> ir.Value:
        shape = (filters, channels, size, size)
        array = self.rng.normal(0, (2 / (channels * size * size)) ** 0.5, shape).astype(np.float32)
        weight = ir.Value(name=f"w{len(self.weights)}", const_value=ir.tensor(array))
        weight.shape, weight.dtype = ir.Shape(shape), ir.DataType.FLOAT
        self.weights.append(weight)
        pads = [(size - 1) // 2] * 4
        y = self.node("Conv", [x, weight], kernel_shape=[size, size], strides=[stride, stride], pads=pads)
        return self.node("Relu", [y])

    def pool(self, x: ir.Value) -> ir.Value:
        return self.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])


def squeezenet() -> ir.Model:
    """SqueezeNet 1.1 for 224 × 224 images: 0.35 G multiplications in dense 1×1 and 3×3 convolutions."""
    build = _Builder()
    image = ir.Value(name="image", shape=ir.Shape((1, 3, 224, 224)), type=ir.TensorType(ir.DataType.FLOAT))
    x, channels = build.pool(build.conv(image, 3, 64, 3, 2)), 64
    for fire in _FIRES:
        if isinstance(fire, str):
            x = build.pool(x)
            continue
        squeeze, expand = fire
        narrow = build.conv(x, channels, squeeze, 1)
        x = build.node(
            "Concat", [build.conv(narrow, squeeze, expand, 1), build.conv(narrow, squeeze, expand, 3)], axis=1
        )
        channels = 2 * expand
    scores = build.node("GlobalAveragePool", [build.conv(x, channels, 1000, 1)])
    scores.shape, scores.dtype = ir.Shape((1, 1000, 1, 1)), ir.DataType.FLOAT
    graph = ir.Graph(
        [image], [scores], nodes=build.nodes, initializers=build.weights, opset_imports={"": 17}, name="squeezenet"
    )
    return ir.Model(graph, ir_version=9)

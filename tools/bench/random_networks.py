"""Random small networks: every operator that a channel can pass, in any order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["RandomNetwork"]


class RandomNetwork:
    """Grows a graph of [2, C, 4, 4] values; `choose(n)` decides every step, so hypothesis can shrink it."""

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.choose = choose
        self.rng = np.random.default_rng(choose(1000))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.values: list[tuple[str, int]] = [("x", 3)]

    def build(self, steps: int) -> onnx.ModelProto:
        self.conv()
        kinds = sorted(name for name in _STEPS)
        for _ in range(steps):
            getattr(self, kinds[self.choose(len(kinds))])()
        name, _ = self.values[-1]
        pooled = self.node("GlobalAveragePool", [name])
        flat = self.node("Flatten", [pooled])
        width = self.values[-1][1]
        self.node("Gemm", [flat, self.weight(3, width), self.weight(3)], output="y", transB=1)
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

    def weight(self, *shape: int, positive: bool = False) -> str:
        array = self.rng.standard_normal(shape).astype(np.float32)
        return self.constant(np.abs(array) + np.float32(0.5) if positive else array)

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, inputs: list[str], output: str | list[str] | None = None, **attributes: object) -> str:
        outputs = [output or f"v{len(self.nodes)}"] if not isinstance(output, list) else output
        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        return outputs[0]

    def any(self) -> tuple[str, int]:
        recent = self.values[-4:]
        return recent[self.choose(len(recent))]

    def keep(self, name: str, channels: int) -> None:
        self.values.append((name, channels))

    def conv(self) -> None:
        x, c = self.any()
        out = 2 * (1 + self.choose(4))
        kernel = 1 + 2 * self.choose(2)
        pads = [kernel // 2] * 4
        self.keep(self.node("Conv", [x, self.weight(out, c, kernel, kernel), self.weight(out)], pads=pads), out)

    def depthwise(self) -> None:
        x, c = self.any()
        m = 1 + self.choose(2)
        self.keep(self.node("Conv", [x, self.weight(c * m, 1, 3, 3)], group=c, pads=[1] * 4), c * m)

    def grouped(self) -> None:
        x, c = self.any()
        if c % 2 == 0 and c > 2:
            self.keep(self.node("Conv", [x, self.weight(c + 2, c // 2, 1, 1)], group=2), c + 2)

    def transposed(self) -> None:
        x, c = self.any()
        self.keep(self.node("ConvTranspose", [x, self.weight(c, 4, 3, 3), self.weight(4)], pads=[1] * 4), 4)

    def relu(self) -> None:
        x, c = self.any()
        self.keep(self.node(("Relu", "Sigmoid", "Tanh", "LeakyRelu")[self.choose(4)], [x]), c)

    def add(self) -> None:
        x, c = self.any()
        other = next((v for v, n in reversed(self.values[:-1]) if n == c and v != x), None)
        if other is not None:
            self.keep(self.node(("Add", "Mul", "Sub", "Max")[self.choose(4)], [x, other]), c)

    def scale(self) -> None:
        x, c = self.any()
        self.keep(self.node(("Add", "Mul")[self.choose(2)], [x, self.weight(c, 1, 1)]), c)

    def norm(self) -> None:
        x, c = self.any()
        if self.choose(2):
            parameters = [self.weight(c), self.weight(c), self.weight(c), self.weight(c, positive=True)]
            self.keep(self.node("BatchNormalization", [x, *parameters]), c)
        else:
            self.keep(self.node("InstanceNormalization", [x, self.weight(c), self.weight(c)], epsilon=1e-2), c)

    def concat(self) -> None:
        (x, c), (y, d) = self.any(), self.any()
        if c + d <= 16:
            self.keep(self.node("Concat", [x, y], axis=1), c + d)

    def split(self) -> None:
        x, c = self.any()
        if c >= 4:
            first = 1 + self.choose(c - 2)
            names = [f"v{len(self.nodes)}a", f"v{len(self.nodes)}b"]
            self.node("Split", [x, self.constant(np.array([first, c - first]))], output=names, axis=1)
            self.keep(names[0], first)
            self.keep(names[1], c - first)

    def slice(self) -> None:
        x, c = self.any()
        if c >= 3:
            start = self.choose(c - 2)
            bounds = [self.constant(np.array([v])) for v in (start, c, 1, 1)]
            self.keep(self.node("Slice", [x, *bounds]), c - start)

    def gather(self) -> None:
        x, c = self.any()
        index = self.rng.permutation(c)[: max(2, c - 1)]
        self.keep(self.node("Gather", [x, self.constant(index)], axis=1), len(index))

    def pad(self) -> None:
        x, c = self.any()
        before, after = self.choose(3), self.choose(3)
        if before + after and c + before + after <= 16:
            amounts = self.constant(np.array([0, before, 0, 0, 0, after, 0, 0]))
            self.keep(self.node("Pad", [x, amounts]), c + before + after)

    def shuffle(self) -> None:
        x, c = self.any()
        if c % 2 == 0:
            grouped = self.node("Reshape", [x, self.constant(np.array([2, 2, c // 2, 4, 4]))])
            turned = self.node("Transpose", [grouped], perm=[0, 2, 1, 3, 4])
            self.keep(self.node("Reshape", [turned, self.constant(np.array([0, c, 4, -1]))]), c)

    def gate(self) -> None:
        x, c = self.any()
        pooled = self.node("GlobalAveragePool", [x])
        small = self.node("Relu", [self.node("Conv", [pooled, self.weight(4, c, 1, 1)])])
        gate = self.node("Sigmoid", [self.node("Conv", [small, self.weight(c, 4, 1, 1), self.weight(c)])])
        self.keep(self.node("Mul", [x, gate]), c)

    def depth_space(self) -> None:
        x, c = self.any()
        if c <= 4:
            deep = self.node("SpaceToDepth", [x], blocksize=2)
            mixed = self.node("Conv", [deep, self.weight(4 * c, 4 * c, 1, 1)])
            mode = ("DCR", "CRD")[self.choose(2)]
            self.keep(self.node("DepthToSpace", [mixed], blocksize=2, mode=mode), c)


_STEPS = [name for name in vars(RandomNetwork) if name not in ("build", "weight", "constant", "node", "any", "keep")]
_STEPS = [name for name in _STEPS if not name.startswith("_")]

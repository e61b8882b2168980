"""Conv, Gemm and MatMul as linear maps: the weight as [outputs, channels, taps] and the inputs as feature rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph import attribute, constant, fresh_name, initializer, is_constant, only_consumer

__all__ = ["Floats", "Layer", "layer_of", "sample_rows"]

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layer:
    """Conv, Gemm or MatMul with a constant weight: y = Σ_c Σ_t W[o, c, t]·x[c, t] + b[o].

    in_axis: the weight's axis that counts input channels. A depthwise Conv has one input channel per output.
    output: where y appears, the Add behind a MatMul included.
    """

    node: ir.Node
    weight: ir.Value
    bias: ir.Value | None
    in_axis: int
    output: ir.Value
    depthwise: bool = False

    @property
    def name(self) -> str:
        return str(self.weight.name)

    def matrix(self) -> Floats:
        """The weight as float64 [outputs, channels, taps]; channels is 1 when depthwise."""
        contents = constant(self.weight)
        assert contents is not None
        array = np.asarray(contents, np.float64)
        if self.node.op_type == "Conv":
            return array.reshape(array.shape[0], array.shape[1], -1)
        return (array if self.in_axis == 1 else array.T)[:, :, None]

    def offset(self) -> Floats:
        """The bias as float64 [outputs], zeros when there is none."""
        contents = None if self.bias is None else constant(self.bias)
        size = self.matrix().shape[0]
        return np.zeros(size) if contents is None else np.broadcast_to(np.asarray(contents, np.float64), (size,)).copy()

    def store(self, matrix: Floats, offset: Floats) -> None:
        """Write weight and bias back in the model's type and layout."""
        old = constant(self.weight)
        assert old is not None
        shaped = matrix.reshape(old.shape) if self.node.op_type == "Conv" else matrix[:, :, 0]
        if self.node.op_type != "Conv" and self.in_axis == 0:
            shaped = shaped.T
        self.weight.const_value = ir.Tensor(np.ascontiguousarray(shaped.astype(old.dtype)), name=self.weight.name)
        if self.bias is not None:
            before = constant(self.bias)
            assert before is not None
            shape = before.shape if before.size == offset.size else offset.shape
            self.bias.const_value = ir.Tensor(offset.reshape(shape).astype(before.dtype), name=self.bias.name)
            self.bias.shape = ir.Shape(shape)
        elif self.node.op_type in ("Conv", "Gemm") and self.node.graph is not None and offset.any():
            graph = self.node.graph
            assert isinstance(graph, ir.Graph)
            made = initializer(graph, fresh_name(graph, f"{self.name}_bias"), offset.astype(old.dtype))
            self.node.resize_inputs(3)
            self.node.replace_input_with(2, made)

    @property
    def has_offset(self) -> bool:
        """False for a MatMul that no bias follows."""
        return self.bias is not None or self.node.op_type in ("Conv", "Gemm")

    def rows(self, x: Floats, chosen: Ints) -> Floats:
        """Feature rows [n, channels·taps] (depthwise: [n, channels, taps]) for the chosen output positions."""
        if self.node.op_type != "Conv":
            return x.reshape(-1, x.shape[-1])[chosen]
        windows = _windows(self.node, x)
        spatial = windows.shape[1 : 1 + x.ndim - 2]
        index = np.unravel_index(chosen, (x.shape[0], *spatial))
        patches = windows[index]
        return patches.reshape(len(chosen), x.shape[1], -1) if self.depthwise else patches.reshape(len(chosen), -1)

    def outputs(self, y: Floats, chosen: Ints) -> Floats:
        """Output rows [n, outputs] for the chosen positions."""
        if self.node.op_type == "Conv":
            y = np.moveaxis(y, 1, -1)
        return y.reshape(-1, y.shape[-1])[chosen]


def _windows(node: ir.Node, x: Floats) -> Floats:
    """Receptive fields as a view, [n, *output positions, channels, *kernel]."""
    contents = constant(node.inputs[1])
    assert contents is not None
    kernel = contents.shape[2:]
    rank = len(kernel)
    strides = list(attribute(node, "strides") or [1] * rank)  # type: ignore[call-overload]
    dilations = list(attribute(node, "dilations") or [1] * rank)  # type: ignore[call-overload]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *_pads(node, x.shape[2:], reach, strides)])
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    positions = tuple(slice(None, None, s) for s in strides)
    taps = tuple(slice(None, None, d) for d in dilations)
    return np.moveaxis(view[(slice(None), slice(None), *positions, *taps)], 1, 1 + rank)


def _pads(node: ir.Node, size: tuple[int, ...], reach: list[int], strides: list[int]) -> list[tuple[int, int]]:
    mode = str(attribute(node, "auto_pad", "NOTSET"))
    rank = len(size)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(size, strides, reach, strict=True)]
        small = [t // 2 for t in total]
        upper = mode == "SAME_UPPER"
        return [(a, t - a) if upper else (t - a, a) for a, t in zip(small, total, strict=True)]
    pads = list(attribute(node, "pads") or [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank  # type: ignore[call-overload]
    return [(int(pads[i]), int(pads[i + rank])) for i in range(rank)]


def layer_of(node: ir.Node) -> Layer | None:
    """The linear view of a node; None when it has none.

    Grouped and transposed layers have none, nor those with alpha ≠ 1 or weights that are shared, dynamic or no float32.
    """
    if len(node.inputs) < 2 or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    weight = node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if not _owned(weight) or (bias is not None and not _owned(bias)):
        return None
    assert weight is not None
    if weight.dtype != ir.DataType.FLOAT:
        return None
    shape, output = list(weight.shape or ()), node.outputs[0]
    if node.op_type == "Conv":
        group = int(attribute(node, "group", 1))  # type: ignore[call-overload]
        if group == 1:
            return Layer(node, weight, bias, 1, output)
        depthwise = shape[1] == 1 and shape[0] == group
        return Layer(node, weight, bias, 1, output, True) if depthwise else None
    if len(shape) != 2:
        return None
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
        if attribute(node, "transA", 0) or not plain:
            return None
        return Layer(node, weight, bias, 1 if attribute(node, "transB", 0) else 0, output)
    added = only_consumer(output)
    if added is not None and added.op_type == "Add":
        other = next(v for v in added.inputs if v is not output)
        if _owned(other) and other is not None and list(other.shape or ()) == [shape[1]]:
            return Layer(node, weight, other, 0, added.outputs[0])
    return Layer(node, weight, None, 0, output)


def _owned(value: ir.Value | None) -> bool:
    return value is not None and is_constant(value) and value.producer() is None and len(list(value.uses())) == 1


def sample_rows(total: int, wanted: int, rng: np.random.Generator) -> Ints:
    """Sorted positions, all of them when there are no more than wanted."""
    return np.arange(total) if total <= wanted else np.sort(rng.choice(total, wanted, replace=False))

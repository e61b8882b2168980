"""Write a placement into the graph as standard ONNX QuantizeLinear / DequantizeLinear."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import attribute, constant, initializer
from ...ir.names import Names, of_values
from ...ir.quantization import Encoding
from .bias_correction import mean_shift
from .bounds import bounds
from .legality import data_inputs, has_weights, weight_axis
from .placement import Placement
from .weights import WeightFormat, bias_levels, rounded_before, weight_encoding, weight_levels

__all__ = ["Writer"]

Array = npt.NDArray[np.generic]


def _goes_below(value: ir.Value, encoding: Encoding) -> bool:
    """Whether the operators that produce a value let it be lower than the levels in use."""
    return bounds(value)[0] < encoding.reach[0]


class Writer:
    """Puts Q/DQ into one graph; names are taken from the values they belong to.

    weights: how weights become levels, which are stored as int8.
    correct_bias: take the mean error of the rounded weights out of the bias, where the input's mean is known.
    """

    def __init__(self, graph: ir.Graph, made_by: str, weights: WeightFormat, correct_bias: bool) -> None:
        self.graph = graph
        self.correct_bias = correct_bias
        self.made_by = made_by
        self.weights = weights
        self._names = Names(of_values(graph))
        self.floats: dict[str, Array] = {}  # what each initialiser of levels was before it was rounded
        self._weights: dict[tuple[ir.Value, int, bytes], tuple[ir.Value, Encoding, Array]] = {}

    def write(self, placement: Placement, encodings: dict[ir.Value, Encoding]) -> None:
        """Quantize the weights of every integer node, then its activations."""
        for node in placement.integer:
            if has_weights(node):
                self._parameters(node, encodings[data_inputs(node)[0]])
        chosen = set(placement.integer)
        for value in placement.quantized:
            self._activation(value, encodings[value], chosen)

    def _activation(self, value: ir.Value, encoding: Encoding, integer: set[ir.Node]) -> None:
        producer = value.producer()
        stem = str(value.name)
        scale, zero = self._constants(stem, encoding)
        clip = [self._clip(value, encoding)] if encoding.levels is not None and _goes_below(value, encoding) else []
        source = clip[0].outputs[0] if clip else value
        quantize = self._node("QuantizeLinear", [source, scale, zero], f"{stem}_quantized", encoding.dtype, value)
        dequantize = self._node(
            "DequantizeLinear", [quantize.outputs[0], scale, zero], f"{stem}_dequantized", ir.DataType.FLOAT, value
        )
        result = dequantize.outputs[0]
        for use in list(value.uses()):
            # A float reader of an integer node's result reads the integers too: the target holds nothing else. A float
            # reader of a float node's result, or of the graph's input, keeps what it had.
            if use.node not in (quantize, *clip) and (use.node in integer or producer in integer):
                use.node.replace_input_with(use.idx, result)
        if value.is_graph_output() and producer in integer:
            self._take_over_output(value, result)
        encoding.attach(result)
        self._insert_after(producer, [*clip, quantize, dequantize])

    def _clip(self, value: ir.Value, encoding: Encoding) -> ir.Node:
        """Clip to the fewer levels in use."""
        stem = str(value.name)
        low, high = (
            self._initializer(f"{stem}_{end}", np.asarray(bound, np.float32))
            for end, bound in zip(("lowest", "highest"), encoding.reach, strict=True)
        )
        return self._node("Clip", [value, low, high], f"{stem}_clipped", ir.DataType.FLOAT, value)

    def _take_over_output(self, old: ir.Value, new: ir.Value) -> None:
        name = str(old.name)
        old.name, new.name = self._names.free(f"{name}_float"), name
        self.graph.outputs[list(self.graph.outputs).index(old)] = new

    def _parameters(self, node: ir.Node, input_encoding: Encoding) -> None:
        weight_value, bias_value = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
        weight, bias = constant(weight_value), constant(bias_value)
        assert weight is not None and weight_value is not None
        axis = weight_axis(node)
        if bias is not None:
            bias = np.broadcast_to(bias.reshape(-1), (weight.shape[axis],))
        read, encoding, levels = self._weight(weight_value, axis, input_encoding, bias)
        error = encoding.dequantize(levels).astype(np.float64) - np.asarray(weight, np.float64)
        if node.op_type != "MatMul" and (shift := self._mean_shift(node, error)) is not None:
            bias = np.zeros(weight.shape[axis]) - shift if bias is None else np.asarray(bias, np.float64) - shift
        node.replace_input_with(1, read)
        if bias is not None:
            stem = str(bias_value.name) if bias_value is not None else f"{weight_value.name}_bias"
            bias_read = self._bias(stem, bias, input_encoding, encoding)
            if len(node.inputs) < 3:
                node.resize_inputs(3)
            node.replace_input_with(2, bias_read)

    def _mean_shift(self, node: ir.Node, error: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
        """The mean that wrong weights add to the result, per output channel; None where E[x] is not known."""
        fact = metadata.get(data_inputs(node)[0], metadata.EVIDENCE) or {}
        groups = int(attribute(node, "group", 1))  # type: ignore[call-overload]
        axis = weight_axis(node)
        channels = error.shape[1] * groups if node.op_type == "Conv" else error.shape[1 - axis]
        # a strided transposed convolution reads a different part of the kernel at each position
        if node.op_type == "ConvTranspose" or not self.correct_bias or len(fact.get("mean", ())) != channels:
            return None
        return mean_shift(error, np.asarray(fact["mean"]), axis, groups)

    def _weight(
        self, value: ir.Value, axis: int, input_encoding: Encoding, bias: Array | None
    ) -> tuple[ir.Value, Encoding, Array]:
        weight = constant(value)
        assert weight is not None
        form, scaled = self.weights, axis if self.weights.per_channel else None
        encoding = weight_encoding(
            weight, scaled, ir.DataType.INT8, float(input_encoding.scale), bias, form.levels, form.clipping
        )
        rounded = rounded_before(value, weight, axis)
        encoding, scaled = (rounded, axis) if rounded is not None else (encoding, scaled)
        # a shared weight is stored once, unless its biases ask for other scales
        key = (value, axis, encoding.scale.tobytes())
        if key not in self._weights:
            stem = str(value.name)
            levels = encoding.quantize(weight) if rounded is not None else weight_levels(weight, encoding, axis, form)
            stored = self._initializer(f"{stem}_levels", levels)
            self.floats[str(stored.name)] = weight
            scale, zero = self._constants(stem, encoding)
            read = self._read(stored, [scale, zero], f"{stem}_dequantized", scaled)
            self._weights[key] = (read, encoding, levels)
        return self._weights[key]

    def _bias(self, stem: str, bias: Array, input_encoding: Encoding, weight_encoding: Encoding) -> ir.Value:
        product = np.asarray(np.float64(input_encoding.scale) * weight_encoding.scale.astype(np.float64), np.float32)
        levels = self._initializer(f"{stem}_levels", bias_levels(bias, product))
        scale = self._initializer(f"{stem}_scale", product)
        return self._read(levels, [scale], f"{stem}_dequantized", 0 if product.ndim else None)

    def _read(self, levels: ir.Value, parameters: list[ir.Value], name: str, axis: int | None) -> ir.Value:
        attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
        node = self._node("DequantizeLinear", [levels, *parameters], name, ir.DataType.FLOAT, levels, attributes)
        self._insert_after(None, [node])
        return node.outputs[0]

    def _constants(self, stem: str, encoding: Encoding) -> tuple[ir.Value, ir.Value]:
        zero = encoding.zero_point.astype(encoding.dtype.numpy())
        return self._initializer(f"{stem}_scale", encoding.scale), self._initializer(f"{stem}_zero_point", zero)

    def _initializer(self, name: str, array: Array) -> ir.Value:
        return initializer(self.graph, self._names.free(name), array)

    def _node(
        self,
        op: str,
        inputs: list[ir.Value],
        name: str,
        dtype: ir.DataType,
        like: ir.Value,
        attributes: Iterable[ir.Attr] = (),
    ) -> ir.Node:
        node = ir.Node("", op, inputs, attributes, num_outputs=1)
        output = node.outputs[0]
        output.name = self._names.free(name)
        node.name = output.name
        output.dtype = dtype
        output.shape = like.shape.copy() if like.shape is not None else None
        metadata.put(node, metadata.MADE_BY, self.made_by)
        return node

    def _insert_after(self, producer: ir.Node | None, nodes: list[ir.Node]) -> None:
        if producer is not None:
            self.graph.insert_after(producer, nodes)
        else:
            self.graph.insert_before(self.graph[0], nodes)

"""`quantize-weights`: weights in 8 or 4 bits beside float activations, or activations quantized as they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import constant, static_shape
from ..base import Pass
from ..cleanup.edit import Editor
from ..context import Context
from .hqq import affine_groups, hqq
from .legality import weight_axis, why_not_matrix
from .opset import PER_CHANNEL_OPSET, raise_opset

__all__ = ["QuantizeWeights"]

Floats = npt.NDArray[np.float64]

_BLOCKED_OPSET = 21  # 4-bit integers and scales of blocks are from here on
_BLOCKED_IR = 10
_DTYPES = {"int8": ir.DataType.UINT8, "int4": ir.DataType.UINT4}
# operator -> inputs that hold weights; recurrent weights are [directions, gates·hidden, inputs]
_WEIGHTS = {"Conv": (1,), "Gemm": (1,), "MatMul": (1,), "GRU": (1, 2), "LSTM": (1, 2), "RNN": (1, 2)}
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """x·W  ⇒  x·DQ(W_q): weights only; activations=dynamic: x·W  ⇒  DynamicQuantizeLinear(x) ·ᵢ W_q · s_x·s_w

    weights: `int8` or `int4`, asymmetric; group: weights of an output channel that share a scale, 0 for all of them.
    method: `hqq`, or `nearest` from the range. 4 bits and groups need opset 21: the model is raised, or left.
    dynamic: products of matrices run on integers (`MatMulInteger`), the range of x found in every run; symmetric
    int8 per channel. Recurrent layers and convolutions keep float activations.
    """

    weights: Literal["int8", "int4"] = "int8"
    group: int = 0
    method: Literal["hqq", "nearest"] = "hqq"
    activations: Literal["float", "dynamic"] = "float"
    name: ClassVar[str] = "quantize-weights"
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.group < 0:
            raise ValueError("group must not be negative")
        if self.activations == "dynamic" and (self.weights != "int8" or self.group):
            raise ValueError("dynamic activations take int8 weights with one scale per channel")

    def run(self, model: ir.Model, context: Context) -> None:
        nodes = [n for n in model.graph if n.op_type in _WEIGHTS and n.domain in ("", "ai.onnx")]
        reasons = {n.name: _why_not(n) for n in nodes}
        if any(not reason for reason in reasons.values()):
            blocked = self.weights == "int4" or self.group > 0
            if reason := raise_opset(model, _BLOCKED_OPSET if blocked else PER_CHANNEL_OPSET):
                context.record.skip("model", reason)
                return
            model.ir_version = max(model.ir_version, _BLOCKED_IR if blocked else 0)
        edit = Editor(model)
        done: dict[tuple[ir.Value, int], ir.Value] = {}
        for node in [n for n in model.graph if n.op_type in _WEIGHTS and n.domain in ("", "ai.onnx")]:
            if reason := _why_not(node):
                context.record.skip(node, reason)
            elif context.record.change(node, self._what(node)):
                if self._runs_on_integers(node):
                    _multiply_integers(node, edit, self.name)
                else:
                    for index in _WEIGHTS[node.op_type]:
                        self._read_quantized(node, index, edit, done)

    def _runs_on_integers(self, node: ir.Node) -> bool:
        return self.activations == "dynamic" and node.op_type in ("MatMul", "Gemm")

    def _what(self, node: ir.Node) -> str:
        if self._runs_on_integers(node):
            return "integers, range of the input found at run time"
        group = self._group(node)
        return f"weights only, one scale for {group} weights" if group else "weights only, one scale per channel"

    def _group(self, node: ir.Node) -> int:
        """The group a layer's weights divide into; 0, for whole channels, where they do not."""
        shape = static_shape(node.inputs[1])
        if not self.group or shape is None or len(shape) != 2:
            return 0
        return 0 if shape[1 - weight_axis(node)] % self.group else self.group

    def _read_quantized(
        self, node: ir.Node, index: int, edit: Editor, done: dict[tuple[ir.Value, int], ir.Value]
    ) -> None:
        value = node.inputs[index]
        assert value is not None
        axis = 1 if node.op_type in _RECURRENT else weight_axis(node)
        if (value, axis) not in done:
            weight = constant(value)
            assert weight is not None
            group = self._group(node)
            done[value, axis] = self._store(node, value, np.asarray(weight, np.float64), axis, group, edit)
        node.replace_input_with(index, done[value, axis])

    def _store(self, node: ir.Node, value: ir.Value, weight: Floats, axis: int, group: int, edit: Editor) -> ir.Value:
        rows = np.moveaxis(weight, axis, 0)
        groups = rows.reshape(-1, group) if group else rows.reshape(len(rows), -1)
        most = 15 if self.weights == "int4" else 255
        levels, scale, zero = (hqq if self.method == "hqq" else affine_groups)(groups, most)
        dtype = _DTYPES[self.weights].numpy()
        stored = np.moveaxis(levels.reshape(rows.shape), 0, axis)
        if group:
            scale, zero = (np.moveaxis(a.reshape(len(rows), -1), 0, axis) for a in (scale, zero))
        stem = str(value.name)
        inputs = [
            edit.constant(f"{stem}_levels", np.ascontiguousarray(stored).astype(dtype)),
            edit.constant(f"{stem}_scale", np.ascontiguousarray(scale).astype(np.float32)),
            edit.constant(f"{stem}_zero_point", np.ascontiguousarray(zero).astype(dtype)),
        ]
        attributes = {"axis": 1 - axis, "block_size": group} if group else {"axis": axis}
        read = edit.insert(node, "DequantizeLinear", inputs, attributes, f"{stem}_dequantized")
        read.dtype, read.shape = ir.DataType.FLOAT, ir.Shape(weight.shape)
        _mark(read, self.name)
        assert node.graph is not None
        first = node.graph[0]
        if read.producer() is not first:  # a shared weight is read ahead of all its readers
            producer = read.producer()
            assert producer is not None
            node.graph.remove(producer)
            node.graph.insert_before(first, producer)
        return read


def _why_not(node: ir.Node) -> str:
    if node.op_type not in _RECURRENT:
        return why_not_matrix(node)
    for index in _WEIGHTS[node.op_type]:
        weight = constant(node.inputs[index])
        if weight is None or weight.dtype != np.float32:
            return "weights are not constant float32"
        if not np.isfinite(weight).all():
            return "weights hold NaN or infinity"
        if len(weight) != 1:
            return "two directions: one scale per row of both has no standard form"
    return ""


def _multiply_integers(node: ir.Node, edit: Editor, made_by: str) -> None:
    """y = s_x·s_w·(x_q − z_x)·W_q + b with x_q found in the run; the node becomes the Add, or the Mul without b."""
    weight = constant(node.inputs[1])
    x = node.inputs[0]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    assert weight is not None and x is not None
    matrix = np.asarray(weight, np.float64)
    matrix = matrix.T if weight_axis(node) == 0 else matrix
    magnitude = np.abs(matrix).max(0, initial=0.0)
    scale = np.asarray(magnitude / 127, np.float32)
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1.0))
    stem = str(node.inputs[1].name)  # type: ignore[union-attr]
    levels = edit.constant(f"{stem}_levels", np.clip(np.rint(matrix / scale), -127, 127).astype(np.int8))
    scales = edit.constant(f"{stem}_scale", scale)
    parts = [ir.Value(name=edit.name(f"{x.name}_{part}")) for part in ("quantized", "scale", "zero_point")]
    quantize = ir.node("DynamicQuantizeLinear", [x], outputs=parts)
    quantize.name = parts[0].name
    assert node.graph is not None
    node.graph.insert_before(node, quantize)
    product = edit.insert(node, "MatMulInteger", [parts[0], levels, parts[2]], {}, f"{stem}_product")
    real = edit.insert(node, "Cast", [product], {"to": ir.DataType.FLOAT.value}, f"{stem}_real")
    both = edit.insert(node, "Mul", [parts[1], scales], {}, f"{stem}_scales")
    left: list[ir.Value | None] = [real, both]
    if bias is not None:
        left = [edit.insert(node, "Mul", [real, both], {}, f"{stem}_scaled"), bias]
    node.op_type = "Add" if bias is not None else "Mul"
    node.attributes.clear()
    node.resize_inputs(2)
    for index, value in enumerate(left):
        node.replace_input_with(index, value)
    for value in (*parts, product, real, both):
        _mark(value, made_by)


def _mark(value: ir.Value, made_by: str) -> None:
    producer = value.producer()
    if producer is not None:
        metadata.put(producer, metadata.MADE_BY, made_by)

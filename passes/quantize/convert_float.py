"""`convert-float`: float32 operators computed in a type of 16 bits, where their numbers fit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import UsageError
from ...ir import metadata
from ...ir.graph import constant, is_constant
from ...ir.shapes import infer
from ..base import Pass
from ..cleanup.edit import Editor, subgraphs
from ..context import Context
from .opset import raise_opset

__all__ = ["ConvertFloat"]

_TYPES: Mapping[str, tuple[ir.DataType, npt.DTypeLike]] = {
    "float16": (ir.DataType.FLOAT16, np.float16),
    "bfloat16": (ir.DataType.BFLOAT16, ml_dtypes.bfloat16),
}
_BFLOAT16_OPSET = 22  # Conv and the pools take bfloat16 from here on
_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
# operators whose result has a type that an attribute states
_STATED = frozenset({"Cast", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform", "Multinomial", "Constant"})
# operators that divide by sums of squares, whose range is the square of their operand's
_SQUARES = frozenset(
    {
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
        "RMSNormalization",
        "ReduceL2",
        "ReduceSumSquare",
    }
)

# operators that sum many numbers one by one; products (Conv, Gemm, MatMul) are summed in float32 by every back end
_SUMS = frozenset(
    {
        "AveragePool",
        "CumSum",
        "Einsum",
        "GlobalAveragePool",
        "LogSoftmax",
        "ReduceL1",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceSum",
        "Softmax",
    }
)


@dataclass(frozen=True)
class ConvertFloat(Pass):
    """f(x) in float32  ⇒  Cast(f(Cast(x))) with f in 16 bits; casts between two such operators are left out

    to: float16 or bfloat16 (the model is raised to opset 22, from which on Conv takes it).
    interface: inputs and outputs of the model change their type as well.
    An operator stays in float32 where a constant or an observed activation is beyond the type's largest number, where
    a constant would become 0, where it sums many numbers or squares other than in a product of matrices, and where ONNX
    does not define it for the type.
    """

    to: str = "float16"
    interface: bool = False
    name: ClassVar[str] = "convert-float"
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.to not in _TYPES:
            raise UsageError(f"{self.to!r} is not a type to convert to", where=self.name, hint="float16 or bfloat16")

    def run(self, model: ir.Model, context: Context) -> None:
        kind, dtype = _TYPES[self.to]
        if kind == ir.DataType.BFLOAT16 and (hindrance := raise_opset(model, _BFLOAT16_OPSET)):
            context.record.note(hindrance)
        infer(model)
        chosen = set()
        for node in model.graph:
            if not any(_is_float(value) for value in (*node.inputs, *node.outputs)):
                continue
            reason = _hindrance(node, kind, dtype, model.graph.opset_imports.get("", 0))
            if reason:
                context.record.skip(node, reason)
            elif context.record.change(node, f"in {self.to}"):
                chosen.add(node)
        if kind == ir.DataType.FLOAT16 and not _has_evidence(model):  # bfloat16 reaches as far as float32
            context.record.note(f"no activation-ranges ran before: that results fit {self.to} is not known")
        _Rewrite(model, chosen, kind, dtype).run(self.interface)


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def _has_evidence(model: ir.Model) -> bool:
    return any(metadata.get(value, metadata.EVIDENCE) for node in model.graph for value in node.outputs)


def _hindrance(node: ir.Node, kind: ir.DataType, dtype: npt.DTypeLike, opset: int) -> str:
    """Why a node stays in float32; empty where it need not."""
    if node.domain not in ("", "ai.onnx"):
        return f"an operator of {node.domain}"
    if node.op_type in _QUANTIZED:
        return "quantized values are read and written in float32"
    if node.op_type in _STATED:
        return "an attribute states its type"
    if node.op_type in _SQUARES:
        return "it divides by sums of squares, which 16 bits do not hold"
    if node.op_type in _SUMS:
        return "it sums many numbers, which loses digits in 16 bits"
    if any(subgraphs(attribute) for attribute in node.attributes.values()):
        return "it runs a subgraph"
    return _undefined(node, kind, opset) or _out_of_range(node, kind, dtype)


def _undefined(node: ir.Node, kind: ir.DataType, opset: int) -> str:
    """ONNX does not define the operator for the type."""
    from onnx import defs

    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return f"ONNX has no {node.op_type} in opset {opset}"
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    for values, formals in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for position, value in enumerate(values):
            formal = formals[min(position, len(formals) - 1)]  # the last may stand for many
            types = allowed.get(formal.type_str, [formal.type_str])
            if _is_float(value) and f"tensor({kind.name.lower()})" not in types:
                return f"ONNX defines no {node.op_type} in {kind.name.lower()} (opset {opset})"
    return ""


def _out_of_range(node: ir.Node, kind: ir.DataType, dtype: npt.DTypeLike) -> str:
    """A number that the type cannot hold."""
    largest = float(ml_dtypes.finfo(dtype).max)
    for value in (*node.inputs, *node.outputs):
        if value is None or not _is_float(value):
            continue
        if is_constant(value):
            array = constant(value)
            assert array is not None
            size = float(np.abs(array, where=np.isfinite(array), out=np.zeros_like(array)).max(initial=0.0))
            if size > largest:
                return f"the constant {value.name!r} reaches {size:.3g}, {kind.name.lower()} {largest:.5g}"
            if array.size == 1 and size and not np.asarray(array).astype(dtype).astype(np.float32).any():
                return f"the constant {size:.3g} would become 0"
            continue
        fact = metadata.get(value, metadata.EVIDENCE)
        reach = max(abs(fact["low"]), abs(fact["high"])) if fact else 0.0
        if reach > largest:
            return f"{value.name!r} reaches {reach:.3g}, {kind.name.lower()} {largest:.5g}"
    return ""


class _Rewrite:
    """Changes the type of the chosen nodes' values, with casts where a value leaves or enters them."""

    def __init__(self, model: ir.Model, chosen: set[ir.Node], kind: ir.DataType, dtype: npt.DTypeLike) -> None:
        self.graph, self.chosen, self.kind, self.dtype = model.graph, chosen, kind, dtype
        self.edit = Editor(model)
        self._narrow: dict[ir.Value, ir.Value] = {}

    def run(self, interface: bool) -> None:
        """Rewrite every chosen node; `interface`: the types of the model's inputs and outputs may change."""
        if interface:
            for given in self.graph.inputs:
                if _is_float(given) and any(use.node in self.chosen for use in given.uses()):
                    given.type = ir.TensorType(self.kind)  # types are shared between clones
                    self._widen(given, next(iter(self.graph)))
        for node in [node for node in self.graph if node in self.chosen]:
            for position, value in enumerate(node.inputs):
                if value is not None and _is_float(value):
                    node.replace_input_with(position, self._narrowed(value, node))
            for result in node.outputs:
                if _is_float(result):
                    result.type = ir.TensorType(self.kind)  # types are shared between clones
                    self._widen(result, None, keep_output=result.is_graph_output() and not interface)
        for name, value in list(self.graph.initializers.items()):
            if value in self._narrow and not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]

    def _narrowed(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """The value in 16 bits: a constant converted, anything else by a cast ahead of its first reader."""
        if value not in self._narrow:
            if is_constant(value):
                array = constant(value)
                assert array is not None
                narrow = self.edit.computed(
                    f"{value.name}_{self.kind.name.lower()}", self.kind, array.shape, lambda: array.astype(self.dtype)
                )
                self._narrow[value] = narrow
            else:
                stem = f"{value.name}_{self.kind.name.lower()}"
                self._narrow[value] = self._cast(value, self.kind, stem, reader)
        return self._narrow[value]

    def _widen(self, value: ir.Value, before: ir.Node | None, keep_output: bool = False) -> None:
        """A cast back for the readers that stayed in float32, behind what makes the value or ahead of a node;
        `keep_output`: it also takes the value's place, under its name, among the model's outputs.
        """
        readers = [(use.node, use.idx) for use in value.uses() if use.node not in self.chosen]
        if not readers and not keep_output:
            return
        name = str(value.name)
        if keep_output:
            value.name = self.edit.name(f"{name}_{self.kind.name.lower()}")
        wide = self._cast(value, ir.DataType.FLOAT, f"{name}_float", before)
        if keep_output:
            wide.name = name
            self.graph.outputs[:] = [wide if output is value else output for output in self.graph.outputs]
        for node, position in readers:
            node.replace_input_with(position, wide)

    def _cast(self, value: ir.Value, kind: ir.DataType, stem: str, before: ir.Node | None) -> ir.Value:
        output = ir.Value(name=self.edit.name(stem), shape=value.shape, type=ir.TensorType(kind))
        cast = ir.node("Cast", [value], attributes={"to": int(kind)}, outputs=[output])
        cast.name = output.name
        producer = value.producer()
        if before is not None:
            self.graph.insert_before(before, cast)
        else:
            assert producer is not None
            self.graph.insert_after(producer, cast)
        return output

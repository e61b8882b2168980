"""An ONNX model to a `Program`: integer steps through our kernels, float nodes through Relax, in plan order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from ...errors import ModelError
from ...ir.graph import is_constant, static_shape
from ...ir.integer import FloatNode, IntegerOp, Operand, Step, plan
from ...targets.target import Target
from ..batch import shape_option
from ..compiled import Placement
from . import loops, recurrent, relax_import, scatter, top_k
from .floats.bfloat16_product import INSTRUCTIONS
from .formula import OPSET
from .machine import CPU, Machine
from .operators.located import Located, row_major
from .operators.workload import Config, Workload
from .program import Program
from .residual import Residual, joined
from .rewrites import rewritten
from .schedule import lanes_of
from .widening import paired, widened

__all__ = ["Lowering", "lower"]


def lower(
    model: ir.Model, target: Target, configs: Mapping[Workload, Config] | None = None, machine: Machine = CPU
) -> tuple[Program, list[Placement]]:
    """The program of a model, and where each of its nodes runs; ModelError for what cannot be compiled.

    Shapes must be inferred and static; the model is only read. `configs` overrides what kernels choose for themselves;
    the program lists every workload with the config it got.
    """
    walk = Lowering(model, target, machine)
    walk.program.configs.update(configs or {})
    for value in model.graph.inputs:
        walk.input(value)
    steps = list(plan(model))
    for step in joined(steps, walk.outputs) if machine is CPU else steps:
        walk.step(step)
    walk.flush()
    outputs = {str(value.name): walk.located(str(value.name)) for value in model.graph.outputs}
    walk.program.finish({name: walk.as_onnx(place) for name, place in outputs.items()})
    return walk.program, walk.placement


# operator -> how it is lowered, where it is not one kernel of many
_HANDLERS = {**loops.HANDLERS, **recurrent.HANDLERS, **scatter.HANDLERS, **top_k.HANDLERS}


class Lowering:
    """State of one walk: where values lie, and float nodes that wait to be imported together."""

    def __init__(self, model: ir.Model, target: Target, machine: Machine) -> None:
        self.model, self.target, self.machine = model, target, machine
        self.program = Program()
        self.placement: list[Placement] = []
        self.values: dict[str, Located] = {}
        self._pending: list[ir.Node] = []
        self._waiting: set[ir.Node] = set()  # the nodes of the model that the pending ones stand for
        self._unpacked: dict[str, IntegerOp] = {}  # weights whose numbers nobody has asked for yet
        self.outputs = {str(v.name) for graph in (model.graph, *model.graph.subgraphs()) for v in graph.outputs}
        self._readers = _readers(model)

    def input(self, value: ir.Value) -> None:
        """Declare a model input."""
        shape = _shape(value)
        if value.dtype is None or value.dtype.is_string():
            raise ModelError(
                f"input {value.name!r} is not a tensor of numbers",
                where=f"input {value.name!r}",
                hint="make it a tensor, or use the optimized ONNX model",
            )
        tensor = self.program.tensor(f"input.{value.name}", shape, value.dtype.numpy().name)
        self.program.inputs.append(self.program.tensors[tensor])
        self.values[str(value.name)] = Located(tensor, shape, value.dtype.numpy().name, row_major(len(shape)))

    def step(self, step: Step | Residual) -> None:
        """Lower an integer operation now; let a float node wait for its neighbours."""
        if isinstance(step, FloatNode):
            self.node(step.node, step.reason)
            return
        if isinstance(step, IntegerOp) and step.kind == "dequantize" and step.inputs[0].constant is not None:
            self._unpacked |= dict.fromkeys(step.outputs, step)  # most readers take the levels as they are
            return
        if isinstance(step, Residual):
            self._integer(step.convolution, step)
        else:
            self._integer(step)

    def _integer(self, step: IntegerOp, residual: Residual | None = None) -> None:
        made = {value.name for node in self._pending for value in node.outputs}
        inputs = step.inputs if residual is None else (*step.inputs, residual.other)
        if any(operand.constant is None and operand.value in made for operand in inputs):
            self.flush()
        operands = [self._operand(operand) for operand in inputs]
        kernel = self.machine.kernel(self.program, step, operands, self.target)
        kernel.residual = residual
        found = self.machine.operators[step.kind](kernel)
        places = found if isinstance(found, list) else [found]
        self.values |= dict(zip(kernel.last.outputs, places, strict=True))
        self._place(step.node, "float32" if step.kind in ("quantize", "dequantize") else "int8", step.kind, step.reason)
        if residual is not None:
            self._place(residual.addition.node, "int8", step.kind, residual.addition.reason)

    def node(self, node: ir.Node, reason: str) -> None:
        """A float node: one with steps of its own now, any other together with its neighbours."""
        version = self.model.opset_imports.get("", 0)
        pieces = rewritten(node, version)
        if pieces == [node] and self.machine is CPU:
            pieces = widened(node, lanes_of(self.target), version)
            if pieces == [node] and self.target.features & INSTRUCTIONS:
                pieces = paired(node, version)
        handler = _HANDLERS.get(node.op_type) if node.domain in ("", "ai.onnx") and pieces == [node] else None
        self._place(node, _float_type(node), "Relax" if handler is None else "blocks", reason)
        if handler is None:
            _refuse_subgraphs(node)
            self._pending += pieces
            self._waiting.add(node)
        else:
            self.flush()
            self.values |= {str(v.name): p for v, p in zip(node.outputs, handler(self, node), strict=True) if v.name}

    def graph(self, graph: ir.Graph, inputs: Sequence[Located]) -> list[str]:
        """The body of a loop or a branch: row-major tensors of its results."""
        self.values |= {str(v.name): place for v, place in zip(graph.inputs, inputs, strict=True)}
        for node in graph:
            self.node(node, "it is part of a loop or a branch")
        self.flush()
        return [self.rows(value) for value in graph.outputs]

    def rows(self, value: ir.Value) -> str:
        """The row-major tensor of a value, which waits for nothing."""
        if is_constant(value):
            assert value.const_value is not None
            return self.program.constant(value.const_value.numpy())
        self._unpack(str(value.name))
        return self.as_onnx(self.values[str(value.name)])

    def scheduled(self, function: Any) -> Any:
        """A PrimFunc of float operators under the machine's own schedule."""
        return self.machine.schedule(function, self.target)

    def compute(self, nodes: Sequence[ir.Node], inputs: Mapping[str, str], wanted: Sequence[ir.Value]) -> list[str]:
        """Calls that compute float nodes of opset `OPSET` from row-major tensors."""
        place = (self.target, self.machine)
        return relax_import.lower_nodes(self.program, nodes, inputs, wanted, place, {"": OPSET})

    def flush(self) -> None:
        """Import the waiting float nodes as one function of the values that are read outside of them."""
        if not self._pending:
            return
        nodes, self._pending = self._pending, []
        inside, self._waiting = self._waiting | set(nodes), set()
        for value in (value for node in nodes for value in node.inputs if value is not None):
            self._unpack(str(value.name))
        wanted = [
            value
            for node in nodes
            for value in node.outputs
            if value.name in self.outputs or any(use not in inside for use in self._readers.get(str(value.name), ()))
        ]
        feeds = relax_import.feeds(nodes, self.values)
        rows = {name: self.as_onnx(self.values[name]) for name in feeds}
        results = relax_import.lower_nodes(
            self.program, nodes, rows, wanted, (self.target, self.machine), self.model.opset_imports
        )
        for value, tensor in zip(wanted, results, strict=True):
            stored = self.program.tensors[tensor]
            _check_shape(value, stored.shape)
            self.values[str(value.name)] = Located(tensor, stored.shape, stored.dtype, row_major(len(stored.shape)))

    def located(self, name: str) -> Located:
        """Where a graph output lies, an initialiser included."""
        self._unpack(name)
        if name not in self.values:
            value = self.model.graph.initializers[name]
            assert value.const_value is not None
            array = value.const_value.numpy()
            tensor = self.program.constant(array)
            self.values[name] = Located(tensor, array.shape, str(array.dtype), row_major(array.ndim))
        return self.values[name]

    def as_onnx(self, place: Located) -> str:
        """A tensor with the value in the order ONNX sees it."""
        rows = row_major(len(place.shape))
        if place.layout == rows:
            return place.tensor
        if place.lies_as(rows):
            return self.program.view(place.tensor, place.shape)
        copy = self.machine.kernel(self.program, _MOVE, [place], self.target)
        copy.relay(0, rows)
        return copy.operands[0].tensor

    def _unpack(self, name: str) -> None:
        """Dequantize weights now, for a reader that wants numbers."""
        if name in self._unpacked:
            self._integer(self._unpacked.pop(name))

    def _operand(self, operand: Operand) -> Located:
        if operand.constant is None:
            return self.located(operand.value)
        array = operand.constant
        return Located(self.program.constant(array), array.shape, str(array.dtype), row_major(array.ndim))

    def _place(self, node: ir.Node, dtype: str, where: str, reason: str) -> None:
        self.placement.append(Placement(node.name or str(node.outputs[0].name), node.op_type, dtype, where, reason))


# What a change of layout outside any operation is called in the program.
_MOVE = IntegerOp("layout", ir.Node("", "Identity", []), (), ("layout",), None)


def _readers(model: ir.Model) -> Mapping[str, list[ir.Node]]:
    """The nodes that read each value, those of subgraphs included."""
    readers: dict[str, list[ir.Node]] = {}
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is not None:
                readers.setdefault(str(value.name), []).append(node)
    return readers


def _float_type(node: ir.Node) -> str:
    """What a node that is no integer operation computes in, for people."""
    kinds = [v.dtype for v in (*node.inputs, *node.outputs) if v is not None]
    return next((k.name.lower() for k in (ir.DataType.BFLOAT16, ir.DataType.FLOAT16) if k in kinds), "float32")


def _shape(value: ir.Value) -> tuple[int, ...]:
    shape = static_shape(value)
    if shape is None:
        text = "unknown" if value.shape is None else ",".join(str(d) for d in value.shape)
        raise ModelError(
            f"input {value.name!r} has a dynamic shape [{text}]; compiled code needs numbers",
            where=f"input {value.name!r}",
            hint=f"fix it, for example with {shape_option(value)}",
        )
    return shape


def _check_shape(value: ir.Value, found: tuple[int, ...]) -> None:
    """Refuse what the importer reads in another way than ONNX: it ignores attributes that it does not know."""
    stated, node = static_shape(value), value.producer()
    if node is not None and stated is not None and stated != tuple(found):
        raise ModelError(
            f"operator {node.op_type} cannot be compiled by TVM: it makes {list(found)} of what is {list(stated)}",
            where=f"{node.op_type} node {node.name!r}",
            hint="model.onnx runs in ONNX Runtime; for machine code, replace the operator",
        )


def _refuse_subgraphs(node: ir.Node) -> None:
    if any(attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attr in node.attributes.values()):
        raise ModelError(
            f"operator {node.op_type} runs a subgraph in a way that compiled code has no form for",
            where=f"{node.op_type} node {node.name!r}",
            hint="model.onnx runs in ONNX Runtime; for machine code, replace the operator",
        )

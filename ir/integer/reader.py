"""`plan`: one walk over the graph that turns Q/DQ around operators into integer operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import onnx_ir as ir

from ..functions import UNARY
from ..names import Names, of_values
from ..quantization import Encoding, integer_range
from . import elementwise, movement, optional, pooling, products
from .arithmetic import EVERYWHERE, Arithmetic
from .encodings import encoding_of, integer_constant, is_standard
from .site import Site, requantize
from .steps import FloatNode, IntegerOp, Operand, Refusal, Step

__all__ = ["HANDLERS", "plan"]

# operator -> how it is read as integer operations
HANDLERS: Mapping[str, Callable[[Site], None]] = {
    **dict.fromkeys(UNARY, elementwise.unary),
    "Add": elementwise.add,
    "AveragePool": pooling.average_pool,
    "Concat": movement.concat,
    "Conv": products.conv,
    "ConvTranspose": optional.conv_transpose,
    "DepthToSpace": movement.depth_to_space,
    "Div": products.div,
    "Dropout": movement.identity,
    "Flatten": movement.flatten,
    "Gather": movement.gather,
    "Gemm": products.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "GlobalMaxPool": pooling.global_max_pool,
    "Identity": movement.identity,
    "MatMul": products.matmul,
    "MaxPool": pooling.max_pool,
    "Mul": products.mul,
    "Pad": movement.pad,
    "ReduceMax": pooling.reduce_max,
    "ReduceMean": pooling.reduce_mean,
    "ReduceSum": pooling.reduce_sum,
    "Reshape": movement.reshape,
    "Resize": optional.resize,
    "Slice": movement.slice_,
    "Softmax": optional.softmax,
    "SpaceToDepth": movement.space_to_depth,
    "Split": movement.split,
    "Squeeze": movement.reshape,
    "Sub": elementwise.sub,
    "Transpose": movement.transpose,
    "Unsqueeze": movement.reshape,
}


def plan(model: ir.Model, arithmetic: Arithmetic = EVERYWHERE) -> list[Step]:
    """The main graph as integer operations and float nodes, in an order that can be executed; the model is only read.

    Values are named as in the graph; integers that the graph never names get names that are free in it. Shapes are
    taken from the model: infer them before, with static dimensions for what depends on them (auto_pad, Slice, …).
    arithmetic: what the executor has; what it lacks becomes a float node.
    """
    return _Reader(model.graph, arithmetic).read()


class _Reader:
    """State of one walk: the integers behind float and integer values, and the nodes already accounted for."""

    def __init__(self, graph: ir.Graph, arithmetic: Arithmetic) -> None:
        self.graph = graph
        self.arithmetic = arithmetic
        self.steps: list[Step] = []
        self.views: dict[str, Operand] = {}  # float value -> the integers it is the dequantization of
        self.integers: dict[str, Operand] = {}  # output of a QuantizeLinear -> the value that holds its integers
        self.made: set[str] = {v.name for v in graph.inputs if v.name} | set(graph.initializers)
        self.done: set[ir.Node] = set()
        self.origin: dict[str, str] = {}  # float value -> why it is float
        self.names = Names(of_values(graph))

    def read(self) -> list[Step]:
        for node in self.graph:
            if node in self.done:
                continue
            if is_standard(node, "QuantizeLinear"):
                self._quantize(node)
            elif is_standard(node, "DequantizeLinear"):
                self._dequantize(node)
            elif (folded := self._folded(node)) is not None:
                self.views[node.outputs[0].name or ""] = folded
            else:
                self._node(node)
        for output in self.graph.outputs:
            self._need(output, "it is a graph output")
        return self._live()

    def _live(self) -> list[Step]:
        """The steps whose results are read; constants that became weights leave nodes behind that nobody needs."""
        needed = {v.name for v in self.graph.outputs}
        live: list[Step] = []
        for step in reversed(self.steps):
            if needed.isdisjoint(step.outputs):
                continue
            live.append(step)
            if isinstance(step, FloatNode):
                needed.update(step.inputs)
            else:
                needed.update(o.value for o in step.inputs if o.constant is None)
        return live[::-1]

    def _folded(self, node: ir.Node) -> Operand | None:
        """The integers of a transposed constant."""
        return integer_constant(node.outputs[0]) if is_standard(node, "Transpose") else None

    def _view(self, value: ir.Value) -> Operand | None:
        return self.views.get(value.name or "")

    def _append(self, step: Step) -> None:
        self.steps.append(step)
        self.made.update(step.outputs)

    def _node(self, node: ir.Node) -> None:
        handler = HANDLERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        reason = f"{node.op_type} has no integer form"
        if handler is not None:
            if not any(v is not None and (self._view(v) or integer_constant(v)) for v in node.inputs):
                self._float(node, "no input is quantized")
                return
            site = Site(node, self._view, self.names.free, arithmetic=self.arithmetic)
            try:
                handler(site)
            except Refusal as refusal:
                reason = str(refusal)
            else:
                self._accept(site)
                return
        self._float(node, reason)

    def _accept(self, site: Site) -> None:
        for step in site.steps:
            self._append(step)
        self.views |= site.views
        if site.tail is not None:
            self.done.add(site.tail)
        for sink in site.sinks:
            self.done.update(sink.activations)
            for quantizer in sink.quantizers:
                self.done.add(quantizer)
                self._hold(quantizer.outputs[0], Operand(sink.value, sink.encoding), quantizer)
        why = f"{site.node.op_type} {_label(site.node)} makes it, and not all its readers quantize it alike"
        for step in site.steps:
            if step.encoding is None:
                self.origin |= dict.fromkeys(step.outputs, why)

    def _hold(self, value: ir.Value, operand: Operand, node: ir.Node) -> None:
        """Record which value holds the integers of a Q output; copy them where someone needs them under this name."""
        assert value.name is not None and operand.encoding is not None
        self.integers[value.name] = operand
        if value.name == operand.value or not self._read_as_tensor(value):
            return
        self._append(requantize(node, operand, value.name, operand.encoding))

    def _quantize(self, node: ir.Node) -> None:
        source, result = node.inputs[0], node.outputs[0]
        assert source is not None and result.name is not None
        try:
            encoding = encoding_of(node, None if source.shape is None else len(source.shape))
            view = self._view(source)
            if view is None:
                self._quantize_float(node, encoding)
            elif view.encoding is not None and view.encoding.same_as(encoding):
                self._hold(result, view, node)
            else:
                self._append(requantize(node, view, result.name, encoding))
                self.integers[result.name] = Operand(result.name, encoding)
        except Refusal as refusal:
            self._float(node, str(refusal))

    def _quantize_float(self, node: ir.Node, encoding: Encoding) -> None:
        source, result = node.inputs[0], node.outputs[0]
        assert source is not None and source.name is not None and result.name is not None
        low, high = integer_range(encoding.dtype)
        default = "it is a graph input" if source.is_graph_input() else "it is computed in float"
        reason = self.origin.get(source.name, default)
        operand = Operand(source.name, None)
        self._append(
            IntegerOp("quantize", node, (operand,), (result.name,), encoding, low, high, covers=(node,), reason=reason)
        )
        self.integers[result.name] = Operand(result.name, encoding)

    def _read_as_tensor(self, value: ir.Value) -> bool:
        return value.is_graph_output() or any(not is_standard(u.node, "DequantizeLinear") for u in value.uses())

    def _dequantize(self, node: ir.Node) -> None:
        """Nothing runs here: the float value becomes a view of its integers until a float node needs it."""
        source, result = node.inputs[0], node.outputs[0]
        assert source is not None and source.name is not None and result.name is not None
        try:
            operand = integer_constant(result)
            if operand is None:
                held = self.integers.get(source.name)
                dtype = None if held is None or held.encoding is None else held.encoding.dtype
                encoding = encoding_of(node, None if source.shape is None else len(source.shape), dtype)
                operand = Operand(source.name if held is None else held.value, encoding)
            self.views[result.name] = operand
        except Refusal as refusal:
            self._float(node, str(refusal))

    def _float(self, node: ir.Node, reason: str) -> None:
        inputs = list(dict.fromkeys(_reads(node)))
        for value in inputs:
            self._need(value, f"{node.op_type} {_label(node)} reads it: {reason}")
        names = tuple(v.name for v in inputs if v.name)
        outputs = tuple(v.name for v in node.outputs if v.name)
        self._append(FloatNode(node, names, outputs, reason))
        self.origin |= dict.fromkeys(outputs, f"{node.op_type} {_label(node)} is float: {reason}")

    def _need(self, value: ir.Value, why: str) -> None:
        """Make a value exist under its own name before a reader that does not take integers."""
        if value.name is None or value.name in self.made:
            return
        view = self.views.get(value.name)
        if view is None:
            return
        producer = value.producer()
        assert producer is not None
        covers = (producer,) if is_standard(producer, "DequantizeLinear") else ()
        self._append(IntegerOp("dequantize", producer, (view,), (value.name,), None, covers=covers, reason=why))


def _label(node: ir.Node) -> str:
    return node.name or next((v.name for v in node.outputs if v.name), None) or "?"


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """The values a node reads: its inputs, and what its subgraphs take from outside themselves."""
    yield from (v for v in node.inputs if v is not None)
    for attr in node.attributes.values():
        for graph in _graphs(attr):
            inside = {v for n in graph.all_nodes() for v in n.outputs}
            for n in graph.all_nodes():
                yield from (v for v in n.inputs if v is not None and v not in inside and not _local(v, graph))
            yield from (v for v in graph.outputs if v not in inside and not _local(v, graph))


def _graphs(attr: ir.Attr) -> list[ir.Graph]:
    if attr.type == ir.AttributeType.GRAPH:
        return [attr.as_graph()]
    return list(attr.as_graphs()) if attr.type == ir.AttributeType.GRAPHS else []


def _local(value: ir.Value, graph: ir.Graph) -> bool:
    return value.graph is graph and (value.is_graph_input() or value.is_initializer())

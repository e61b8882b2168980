"""`Site`: what the reading of one node may ask of the graph around it, and the steps it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..graph import attribute, only_consumer
from ..quantization import Encoding, integer_range
from .arithmetic import EVERYWHERE, Arithmetic
from .encodings import encoding_of, integer_constant, is_standard, known
from .steps import IntegerOp, Operand, Refusal

__all__ = ["Sink", "Site", "multiplier"]

Array = npt.NDArray[np.generic]
Float32 = npt.NDArray[np.float32]

ACTIVATIONS = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16})


@dataclass(frozen=True, eq=False)
class Sink:
    """Where a node's result becomes integers: the QuantizeLinear behind it, with the activations fused in between."""

    value: str
    encoding: Encoding
    low: int
    high: int
    quantizers: tuple[ir.Node, ...]
    activations: tuple[ir.Node, ...]

    @property
    def covers(self) -> tuple[ir.Node, ...]:
        return self.activations + self.quantizers


@dataclass
class Site:
    """One node under reading. `view` finds the integers behind a float value; `fresh` makes a free value name.

    tail: a later node whose work it also does (the Add of a bias), if any. steps: what was emitted for it.
    sinks: the quantizers it took over. views: float results whose integers are known.
    arithmetic: what the executor has.
    """

    node: ir.Node
    view: Callable[[ir.Value], Operand | None]
    fresh: Callable[[str], str]
    tail: ir.Node | None = None
    steps: list[IntegerOp] = field(default_factory=list)
    sinks: list[Sink] = field(default_factory=list)
    views: dict[str, Operand] = field(default_factory=dict)
    arithmetic: Arithmetic = EVERYWHERE

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the node as a plain value."""
        return attribute(self.node, name, default)

    def input(self, i: int) -> ir.Value | None:
        """The i-th input; None where it is absent."""
        return self.node.inputs[i] if i < len(self.node.inputs) else None

    def sizes(self, i: int, axes: Iterable[int]) -> tuple[int, ...]:
        """The static sizes of these axes of an input, or a refusal."""
        value = self.input(i)
        if value is None or value.shape is None:
            raise Refusal(f"the shape of {value.name if value else 'an absent input'} is unknown")
        found = [value.shape[axis] for axis in axes]
        sizes = tuple(n for n in found if isinstance(n, int))
        if len(sizes) < len(found):
            raise Refusal(f"the shape of {value.name} is not static")
        return sizes

    def spatial(self) -> tuple[int, ...]:
        """The static sizes of the first input behind batch and channel, or a refusal."""
        return self.sizes(0, range(2, self.rank(0)))

    def rank(self, i: int) -> int:
        """The number of dimensions of an input, or a refusal."""
        value = self.input(i)
        if value is None or value.shape is None:
            raise Refusal(f"the rank of {value.name if value else 'an absent input'} is unknown")
        return len(value.shape)

    def axis(self, value: Any, i: int = 0) -> int:
        """An axis of the i-th input as a non-negative number."""
        return int(value) if int(value) >= 0 else int(value) + self.rank(i)

    def constant(self, i: int) -> Array | None:
        """The contents of a constant input, a dequantized one included; None where it is absent or computed."""
        return known(self.input(i))

    def integers(self, i: int, name: str) -> list[int] | None:
        """A list given as the attribute `name` in old opsets and as input i in new ones; None where absent."""
        found = self.attribute(name)
        value = self.input(i)
        if found is None and value is not None:
            found = known(value)
            if found is None:
                raise Refusal(f"{name} is not constant")
        return None if found is None else [int(v) for v in np.ravel(found)]

    def weight(self, i: int) -> Operand | None:
        """The integers of a constant input, possibly with one encoding for each channel."""
        return integer_constant(self.input(i))

    def operand(self, i: int, bits: int = 16) -> Operand:
        """The integers behind an input, at most `bits` wide, or a refusal."""
        value = self.input(i)
        found = None if value is None else integer_constant(value) or self.view(value)
        if found is None or found.encoding is None:
            raise Refusal(f"input {value.name if value else i} is not quantized")
        if found.encoding.axis is not None:
            raise Refusal(f"input {found.value} has a scale for each slice, which this operator cannot use")
        dtype = found.encoding.dtype
        low, high = integer_range(dtype)
        if high - low >= 2**bits or (found.constant is None and dtype not in ACTIVATIONS):
            raise Refusal(f"input {found.value} has {dtype.name} levels; this operator takes 8 to {bits} bits")
        return found

    def sink(self, i: int = 0, *, fuse: bool = True) -> Sink | None:
        """The encoding that all readers of output i (behind its activations) quantize it to; None when they do not."""
        last = self.tail or self.node
        return _sink(last, last.outputs[i], fuse)

    def emit(self, kind: str, inputs: tuple[Operand, ...], sink: Sink | None, **fields: Any) -> None:
        """Add an operation whose result goes to the sink, or stays float where there is none."""
        if sink is None:
            last = self.tail or self.node
            op = IntegerOp(kind, self.node, inputs, (_name(last.outputs[0]),), None, **fields)
        else:
            self.sinks.append(sink)
            op = IntegerOp(kind, self.node, inputs, (sink.value,), sink.encoding, sink.low, sink.high, **fields)
        tail = () if self.tail is None else (self.tail,)
        behind = () if sink is None else sink.covers
        self.steps.append(replace(op, covers=(*self.dequantizers(), self.node, *tail, *behind)))

    def result(self, i: int, encoding: Encoding) -> str:
        """A name for the integers behind the float output i, which nothing quantizes; readers find them as its view."""
        name = self.fresh(f"{self.node.outputs[i].name}_quantized")
        self.views[_name(self.node.outputs[i])] = Operand(name, encoding)
        return name

    def dequantizers(self) -> tuple[ir.Node, ...]:
        """The DQ nodes that the node reads from directly."""
        producers = [value.producer() for value in self.node.inputs if value is not None]
        return tuple(p for p in producers if p is not None and is_standard(p, "DequantizeLinear"))

    def in_encoding(self, operand: Operand, encoding: Encoding) -> Operand:
        """The operand in another encoding, by a requantize step where they differ."""
        assert operand.encoding is not None
        if operand.encoding.same_as(encoding):
            return operand
        for step in self.steps:
            if step.kind == "requantize" and step.inputs[0].value == operand.value:
                return Operand(step.outputs[0], encoding)  # the node reads it twice
        name = self.fresh(f"{operand.value}_requantized")
        self.steps.append(requantize(self.node, operand, name, encoding))
        return Operand(name, encoding)


def requantize(node: ir.Node, operand: Operand, name: str, encoding: Encoding) -> IntegerOp:
    """The step that carries integers from one per-tensor encoding to another."""
    assert operand.encoding is not None
    if operand.encoding.axis is not None or encoding.axis is not None:
        raise Refusal(f"{operand.value} changes between encodings with a scale for each slice")
    m = multiplier(operand.encoding.scale, over=encoding.scale)
    low, high = integer_range(encoding.dtype)
    return IntegerOp("requantize", node, (operand,), (name,), encoding, low, high, multiplier=m, covers=(node,))


def multiplier(*scales: Array | float, over: Array | float = 1.0) -> Float32:
    """`float32(Π scales / over)`, computed in float64 and rounded once; refused where it is not finite."""
    product = np.asarray(1.0, np.float64)
    for scale in scales:
        product = product * np.asarray(scale, np.float64)
    with np.errstate(over="ignore"):
        m = np.asarray(product / np.asarray(over, np.float64), np.float32)
    if not np.isfinite(m).all():
        raise Refusal("the ratio of the scales overflows float32")
    return m


def _sink(core: ir.Node, value: ir.Value, fuse: bool) -> Sink | None:
    low, high = -np.inf, np.inf
    activations: list[ir.Node] = []
    while fuse:
        node = only_consumer(value)
        bounds = None if node is None or node.graph is not core.graph else activation_bounds(node, value)
        if node is None or bounds is None:
            break
        low, high = float(np.clip(low, *bounds)), float(np.clip(high, *bounds))
        activations.append(node)
        value = node.outputs[0]
    readers = list(dict.fromkeys(use.node for use in value.uses()))
    if not readers or value.is_graph_output():
        return None
    if any(not is_standard(n, "QuantizeLinear") or n.graph is not core.graph for n in readers):
        return None
    try:
        encodings = [encoding_of(n, None) for n in readers]
    except Refusal:
        return None
    first = encodings[0]
    if first.axis is not None or first.dtype not in ACTIVATIONS:
        return None
    if any(not first.same_as(other) for other in encodings[1:]):
        return None
    ends = first.quantize(np.array([low, high], np.float32))
    return Sink(_name(readers[0].outputs[0]), first, int(ends[0]), int(ends[1]), tuple(readers), tuple(activations))


def activation_bounds(node: ir.Node, value: ir.Value) -> tuple[float, float] | None:
    """Lower and upper bound of a Relu, or of a Clip of `value` with constant bounds; None for any other node."""
    if is_standard(node, "Relu"):
        return 0.0, np.inf
    if not is_standard(node, "Clip") or node.inputs[0] is not value:
        return None
    bounds = []
    for i, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        given = node.inputs[i] if i < len(node.inputs) else None
        bound = attribute(node, name, default) if given is None else known(given)
        if bound is None:
            return None
        bounds.append(float(np.ravel(np.asarray(bound))[0]))
    return (bounds[0], bounds[1]) if bounds[0] <= bounds[1] else None


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name

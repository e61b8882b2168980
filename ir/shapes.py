"""Shapes of every value, dynamic sizes included: fix the inputs' sizes, infer the rest, never load a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ..errors import UsageError
from .dimension import Dimension, Expression, opaque, symbol
from .graph import attribute, constant, is_constant, static_shape
from .shape_contents import CONTENTS, LIMIT, pack
from .shape_question import Contents, Question, Shape
from .shape_rules import RULES

__all__ = ["Shapes", "fix_dimensions", "infer"]

_INTEGERS = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL}
_NAME_LIMIT = 80  # letters; every strided layer nests the expression of a dynamic size once more
# what a rule raises for an invalid node: the verifier's business, here nothing is known about its outputs
_RULE_ERRORS = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError)
# operators whose output type is not that of their first input
_BOOLEAN = {"And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor"}
_INT64 = {"ArgMax", "ArgMin", "Shape", "Size"}
_TYPE_OF_INPUT = {"CastLike": 1, "DequantizeLinear": 1, "QuantizeLinear": 2, "Where": 1}


class Shapes:
    """What inference found: a shape (numbers and expressions) per value, and what small integer values hold."""

    def __init__(self, version: int, inputs: Sequence[ir.Value] = ()) -> None:
        self.version = version
        self._shapes: dict[ir.Value, Shape | None] = {value: _named(value) for value in inputs}
        self._contents: dict[ir.Value, Contents | None] = {}

    def shape(self, value: ir.Value | None) -> Shape | None:
        """The shape of a value, or None when not even its rank is known."""
        if value is None:
            return None
        if value not in self._shapes:
            self._shapes[value] = _shape_of_source(value)
        return self._shapes[value]

    def rank(self, value: ir.Value | None) -> int | None:
        found = self.shape(value)
        return None if found is None else len(found)

    def contents(self, value: ir.Value | None) -> Contents | None:
        """What an integer or boolean value of at most 256 elements holds, or None when it is not known."""
        if value is None:
            return None
        if value not in self._contents:
            self._contents[value] = _contents_of_constant(value)
        return self._contents[value]

    def numbers(self, value: ir.Value | None) -> list[int] | None:
        """The contents as a flat list when all of it are numbers."""
        found = self.contents(value)
        if found is None or any(isinstance(e, Expression) for e in found.reshape(-1)):
            return None
        return [int(e) for e in found.reshape(-1)]

    def visit(self, node: ir.Node) -> None:
        """Find the shapes, types and contents of a node's outputs from its inputs'."""
        if node.domain not in ("", "ai.onnx"):
            for output in node.outputs:
                self._shapes[output] = _declared(output)
            return
        question = Question(
            node, self.version, [self.shape(v) for v in node.inputs], [self.contents(v) for v in node.inputs]
        )
        shapes, contents = self._apply_rules(question), self._apply_contents(question)
        if shapes is None or any(o.dtype is None or s is None for o, s in zip(node.outputs, shapes, strict=True)):
            shapes = _complete(shapes, _schema_inference(node, self), node)
        for output, shape in zip(node.outputs, shapes, strict=True):
            self._shapes[output] = shape
        if contents is not None:
            self._contents[node.outputs[0]] = contents

    def _apply_contents(self, question: Question) -> Contents | None:
        node = question.node
        rule = CONTENTS.get(node.op_type)
        kind = node.outputs[0].dtype if node.outputs else None
        carried = kind in _INTEGERS or (kind == ir.DataType.FLOAT and node.op_type == "Cast")
        if rule is None or not carried:  # float arithmetic rounds; only the conversion of a whole number is carried
            return None
        try:
            found = rule(question)
        except _RULE_ERRORS:
            return None
        return found if found is None or found.size <= LIMIT else None

    def _apply_rules(self, question: Question) -> list[Shape | None] | None:
        node = question.node
        _set_type(node)
        if node.op_type == "Constant":
            tensor = ir.convenience.get_const_tensor(node.outputs[0])
            if tensor is None:
                return None
            node.outputs[0].const_value, node.outputs[0].dtype = tensor, tensor.dtype
            return [tuple(int(d) for d in tensor.shape)]  # type: ignore[arg-type]
        rule = RULES.get(node.op_type)
        try:
            if node.op_type == "Shape":
                contents = CONTENTS["Shape"](question)
                return None if contents is None else [(contents.size,)]
            if node.op_type == "Split":
                return _split(question)
            if rule is None:
                return None
            first = rule(question)
        except _RULE_ERRORS:
            return None
        rest: list[Shape | None] = [None] * (len(node.outputs) - 1)
        if node.op_type in ("LSTM", "GRU", "RNN") and first is not None:
            rest = [first[1:]] * len(rest)
        elif node.op_type in ("MaxPool", "Dropout"):
            rest = [first] * len(rest)
        return [first, *rest]


def infer(model: ir.Model) -> Shapes:
    """Annotate every value with its type and shape, found from the inputs alone, and return what was found.

    Shapes that the file declares for intermediate values are replaced: exporters and editors leave stale ones behind.
    Weights are never serialised, and only integer tensors of at most 256 elements are read.
    """
    shapes = Shapes(model.graph.opset_imports.get("", 0), model.graph.inputs)
    outputs = set(model.graph.outputs)
    for node in model.graph.all_nodes():
        shapes.visit(node)
    for node in model.graph.all_nodes():
        for output in node.outputs:
            found = shapes.shape(output)
            if found is not None and not (output in outputs and output.shape is not None):
                output.shape = ir.Shape([s if isinstance(s, int) else _name(s) for s in found])
    return shapes


def fix_dimensions(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give inputs fixed shapes; a named size that one input fixes is fixed wherever the name stands in an input."""
    inputs = {value.name: value for value in model.graph.inputs}
    names: dict[str, int] = {}
    for name, wanted in shapes.items():
        if name not in inputs:
            raise UsageError(
                f"the model has no input called {name!r}",
                where=f"--shape {name}:{','.join(map(str, wanted))}",
                hint=f"its inputs are: {', '.join(str(n) for n in inputs)}",
            )
        _check(inputs[name], wanted)
        for old, new in zip(inputs[name].shape or (), wanted, strict=False):
            text = old.value if isinstance(old, ir.SymbolicDim) else None
            if text and names.setdefault(text, int(new)) != new:
                raise UsageError(
                    f"the size {text!r} would be both {names[text]} and {new}",
                    where=f"--shape {name}:{','.join(map(str, wanted))}",
                    hint=f"give every input that names {text!r} the same size there",
                )
        inputs[name].shape = ir.Shape([int(d) for d in wanted])
    for value in [*model.graph.inputs, *model.graph.outputs]:
        if value.shape is not None:
            value.shape = ir.Shape([names.get(_text(d), d) for d in value.shape])


def _check(value: ir.Value, wanted: Sequence[int]) -> None:
    where = f"--shape {value.name}:{','.join(map(str, wanted))}"
    declared = None if value.shape is None else list(value.shape)
    if declared is not None and len(declared) != len(wanted):
        what = f"input {value.name!r} has {len(declared)} dimensions, not {len(wanted)}"
        raise UsageError(what, where=where, hint=f"the model declares {value.shape}")
    for axis, (old, new) in enumerate(zip(declared or wanted, wanted, strict=True)):
        if int(new) < 1 or (isinstance(old, int) and old != new):
            what = f"dimension {axis} of input {value.name!r} cannot be {new}"
            fixed = f"the model fixes it to {old}" if isinstance(old, int) and old != new else "sizes start at 1"
            raise UsageError(what, where=where, hint=f"{fixed}; it declares {value.shape}")


def _text(dim: object) -> str:
    return dim.value or "" if isinstance(dim, ir.SymbolicDim) else ""


def _name(size: Dimension) -> str | None:
    text = str(size).replace("~", "")
    return None if "?" in text or len(text) > _NAME_LIMIT else text


def _shape_of_source(value: ir.Value) -> Shape | None:
    """The shape of an initialiser, a subgraph's input, or a value of a graph that is not visited."""
    if value.const_value is not None and not value.is_graph_input():
        return tuple(int(d) for d in value.const_value.shape)  # type: ignore[arg-type]
    return _declared(value)


def _named(value: ir.Value) -> Shape | None:
    """The shape of a model input: the one place where equal names mean equal sizes."""
    if value.shape is None:
        return None
    texts = [_text(d) for d in value.shape]
    pairs = enumerate(zip(value.shape, texts, strict=True))
    return tuple(
        d if isinstance(d, int) else symbol(text) if text else opaque(f"{value.name}.{i}") for i, (d, text) in pairs
    )


def _declared(value: ir.Value) -> Shape | None:
    """A declared shape nobody vouches for: its names are not taken as equal to names elsewhere."""
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else opaque(f"{value.name}.{i}") for i, d in enumerate(value.shape))


def _contents_of_constant(value: ir.Value) -> Contents | None:
    tensor = value.const_value
    if not is_constant(value) or tensor is None or tensor.size > LIMIT or tensor.dtype not in _INTEGERS:
        return None
    array = tensor.numpy()
    return pack(array.reshape(-1).tolist(), array.shape)


def _set_type(node: ir.Node) -> None:
    output = node.outputs[0] if node.outputs else None
    if output is None or output.dtype is not None:
        return
    op = node.op_type
    if op in _BOOLEAN:
        output.dtype = ir.DataType.BOOL
    elif op in _INT64:
        output.dtype = ir.DataType.INT64
    elif op == "Cast":
        output.dtype = ir.DataType(int(attribute(node, "to", 0)))  # type: ignore[call-overload]
    elif op == "ConstantOfShape":
        fill: Any = attribute(node, "value")
        output.dtype = ir.DataType.FLOAT if fill is None else fill.dtype
    elif op in RULES or op == "Split":
        index = _TYPE_OF_INPUT.get(op, 0)
        source = node.inputs[index] if index < len(node.inputs) else None
        kind = source.dtype if source is not None and isinstance(source.type, ir.TensorType) else None
        if kind is not None:
            for other in node.outputs if op in ("Split", "LSTM", "GRU", "RNN") else node.outputs[:1]:
                other.dtype = kind


def _split(q: Question) -> list[Shape | None] | None:
    x = q.shape(0)
    if x is None:
        return None
    axis, count = q.attr("axis", 0) % len(x), len(q.node.outputs)
    sizes = q.list(1, "split") if q.has(1, "split") else None
    if sizes is None and not q.has(1, "split") and isinstance(x[axis], int):
        chunk = -(-int(x[axis]) // count)
        sizes = [min(chunk, int(x[axis]) - i * chunk) for i in range(count)]
    if sizes is None or len(sizes) != count:
        unknown = [opaque(f"{output.name}.{axis}") for output in q.node.outputs]
        sizes = [x[axis]] if count == 1 else list(unknown)
    return [(*x[:axis], size, *x[axis + 1 :]) for size in sizes]


def _schema_inference(node: ir.Node, shapes: Shapes) -> list[Shape | None]:
    """ONNX's own inference of one node, for operators that have no rule here; sizes it names are unknown ones."""
    nothing: list[Shape | None] = [None] * len(node.outputs)
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return _branches(node, shapes) if node.op_type == "If" else nothing
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for value in node.inputs:
        if value is None or value.name is None:
            continue
        if value.dtype is None or not isinstance(value.type, ir.TensorType):
            return nothing
        shape = shapes.shape(value)
        dims = None if shape is None else [s if isinstance(s, int) else None for s in shape]
        types[value.name] = onnx.helper.make_tensor_type_proto(int(value.dtype), dims)
        numbers = shapes.numbers(value)
        if numbers is not None and value.dtype in _INTEGERS:
            array = np.asarray(numbers, value.dtype.numpy()).reshape(static_shape(value) or (len(numbers),))
            data[value.name] = onnx.numpy_helper.from_array(array, value.name)
        elif value.dtype == ir.DataType.FLOAT and (scales := constant(value, LIMIT)) is not None:
            data[value.name] = onnx.numpy_helper.from_array(scales, value.name)  # Resize
    try:
        schema = onnx.defs.get_schema(node.op_type, shapes.version, "")
        found = onnx.shape_inference.infer_node_outputs(schema, ir.to_proto(node), types, data)
    except Exception:  # no schema, or a node it rejects: nothing is known
        return nothing
    result: list[Shape | None] = []
    for output in node.outputs:
        proto = found.get(output.name)
        if proto is None or not proto.HasField("tensor_type"):
            result.append(None)
            continue
        if output.dtype is None and proto.tensor_type.elem_type:
            output.dtype = ir.DataType(proto.tensor_type.elem_type)
        known = [d.dim_value if d.HasField("dim_value") else None for d in proto.tensor_type.shape.dim]
        has_shape = proto.tensor_type.HasField("shape")
        sizes = tuple(opaque(f"{output.name}.{i}") if d is None else d for i, d in enumerate(known))
        result.append(sizes if has_shape else None)
    return result


def _branches(node: ir.Node, shapes: Shapes) -> list[Shape | None]:
    """An If's output has the shape both branches agree on, or that of the branch with the rank the file declares.

    The rank is the one thing taken from a declaration: where branches differ in rank, the readers work for one only.
    """
    branches = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    for branch in branches:
        for inner in branch.all_nodes():
            shapes.visit(inner)
    result: list[Shape | None] = []
    for i, output in enumerate(node.outputs):
        found = [shapes.shape(b.outputs[i]) for b in branches]
        if output.shape is not None and len({None if f is None else len(f) for f in found}) > 1:
            found = [f for f in found if f is not None and len(f) == len(output.shape)]
        result.append(found[0] if found and all(f == found[0] for f in found) else None)
        if output.type is None:
            output.type = branches[0].outputs[i].type
    return result


def _complete(found: list[Shape | None] | None, other: list[Shape | None], node: ir.Node) -> list[Shape | None]:
    if found is None:
        return other
    return [a if a is not None else b for a, b in zip(found, other, strict=True)]

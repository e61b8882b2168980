"""A model as text: the official ONNX syntax with stable names, sorted attributes and hashed weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from .. import metadata
from ..graph import constant
from .literals import Sink, quote, spell_float, spell_name, spell_tensor

__all__ = ["Printer"]

_INDENT = "   "
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_SCALES = 1 << 16  # elements of a scale that are looked at


class Printer:
    """Prints one model; tensors that are written as a hash are handed to `sink(hash, array)` one at a time."""

    def __init__(self, sink: Sink | None = None) -> None:
        self._sink = sink
        self._names: dict[int, str] = {}
        self._taken: set[str] = set()

    def model(self, model: ir.Model) -> str:
        for outermost in (model.graph, *(f.graph for f in model.functions.values())):
            for graph in (outermost, *outermost.subgraphs()):
                self._taken |= _names_in(graph)
        lines = [self._header(model), *self._graph(model.graph, "")]
        for identifier in sorted(model.functions):
            lines += self._function(model.functions[identifier])
        return "\n".join(lines) + "\n"

    def _header(self, model: ir.Model) -> str:
        fields = [f"ir_version: {model.ir_version}", _opsets(model.opset_imports)]
        for key in ("producer_name", "producer_version", "domain"):
            if getattr(model, key):
                fields.append(f"{key}: {quote(getattr(model, key))}")
        if model.model_version:
            fields.append(f"model_version: {model.model_version}")
        if model.metadata_props:
            entries = (f"\n{_INDENT * 2}{quote(k)}: {quote(v)}" for k, v in sorted(model.metadata_props.items()))
            fields.append(f"metadata_props: [{','.join(entries)}\n{_INDENT}]")
        return f"<{', '.join(fields)}>"

    def _graph(self, graph: ir.Graph, indent: str) -> list[str]:
        inputs = ", ".join(self._typed(v) for v in graph.inputs)
        outputs = ", ".join(self._typed(v, facts=v.producer() is not None) for v in graph.outputs)
        signature = f"{spell_name(graph.name or 'graph')} ({inputs}) => ({outputs})"
        return [signature + _facts(graph), *self._contents(graph, indent)]

    def _contents(self, graph: ir.Graph, indent: str) -> list[str]:
        """Initialisers and typed intermediate values in angle brackets, then the nodes in braces."""
        inner = indent + _INDENT
        inputs = {id(v) for v in graph.inputs}
        entries = [self._initializer(v, facts=id(v) not in inputs) for v in graph.initializers.values()]
        listed = inputs | {id(v) for v in (*graph.outputs, *graph.initializers.values())}
        produced = (v for node in graph for v in node.outputs if id(v) not in listed and v.name != "")
        entries += [self._typed(v) for v in produced if v.type is not None or v.shape is not None or _facts(v)]
        lines = []
        if entries:
            lines = [f"{indent}<", ",\n".join(inner + entry for entry in entries), f"{indent}>"]
        lines.append(indent + "{")
        for node in graph:
            lines += self._node(node, inner)
        lines.append(indent + "}")
        return lines

    def _function(self, function: ir.Function) -> list[str]:
        fields = [f"domain: {quote(function.domain)}", _opsets(function.opset_imports)]
        if function.overload:
            fields.append(f"overload: {quote(function.overload)}")
        attributes = [
            spell_name(a.name) if a.value is None else self._attribute(a, "")
            for a in sorted(function.attributes.values(), key=lambda a: a.name)
        ]
        options = f" <{', '.join(attributes)}>" if attributes else ""
        inputs = ", ".join(self._typed(v) for v in function.inputs)
        outputs = ", ".join(self._typed(v) for v in function.outputs)
        signature = f"{spell_name(function.name)}{options} ({inputs}) => ({outputs})"
        return [f"<{', '.join(fields)}>", signature + _facts(function.graph), *self._contents(function.graph, "")]

    def _node(self, node: ir.Node, indent: str) -> list[str]:
        outputs = ", ".join(self._name(v) for v in node.outputs)
        first = node.outputs[0].name if node.outputs else None
        label = f"[{spell_name(node.name)}] " if node.name and node.name != first else ""
        domain = "".join(f"{spell_name(part)}." for part in node.domain.split(".") if part)
        overload = f":{spell_name(node.overload)}" if node.overload else ""
        inputs = ", ".join('""' if v is None else self._name(v) for v in node.inputs)
        # subgraphs keep their order: passes visit them in it
        subgraphs = [a for a in node.attributes.values() if a.type in _GRAPHS and not a.is_ref()]
        others = [a for a in node.attributes.values() if a.type not in _GRAPHS or a.is_ref()]
        nested = [self._attribute(a, indent + _INDENT) for a in subgraphs]
        plain = [self._attribute(a, indent) for a in sorted(others, key=lambda a: a.name)]
        head = f"{indent}{label}{outputs} = {domain}" if outputs else f"{indent}{label}{domain}"
        head += f"{spell_name(node.op_type)}{overload} "
        head += f"<{', '.join(plain)}> ({inputs})" if plain else f"({inputs})"
        tail = _facts(node) + _parameters(node)
        if not nested:
            return [head + tail]
        inner = indent + _INDENT
        return [head + " <", ",\n".join(inner + text for text in nested), f"{indent}>{tail}"]

    def _attribute(self, attribute: ir.Attr, indent: str) -> str:
        name, kind = spell_name(attribute.name), ir.AttributeType(attribute.type).name.lower()
        if attribute.is_ref():
            return f"{name}: {kind} = @{spell_name(str(attribute.ref_attr_name))}"
        value = attribute.value
        if kind.endswith("s"):
            items = ", ".join(self._item(kind[:-1], item, indent) for item in value)
            typed = f": {kind}" if not value or kind in ("type_protos", "graphs") else ""
            return f"{name}{typed} = [{items}]"
        typed = f": {kind}" if kind == "type_proto" or (kind == "float" and not np.isfinite(value)) else ""
        return f"{name}{typed} = {self._item(kind, value, indent)}"

    def _item(self, kind: str, value: object, indent: str) -> str:
        match value:
            case str() | bytes():
                return quote(value)
            case float():
                return spell_float(value)
            case ir.Graph():
                return "\n".join(self._graph(value, indent))
            case ir.TypeAndShape():
                return _type(value.type, value.shape)
            case ir.TensorProtocol():
                return f"{_type(ir.TensorType(value.dtype), value.shape)} {spell_tensor(value, self._sink)}"
        return str(value)

    def _initializer(self, value: ir.Value, facts: bool) -> str:
        tensor = value.const_value
        if tensor is None:
            return self._typed(value, facts)
        typed = _type(ir.TensorType(tensor.dtype), tensor.shape)
        text = f"{typed} {self._name(value)} = {spell_tensor(tensor, self._sink)}"
        return text + _facts(value) if facts else text

    def _typed(self, value: ir.Value, facts: bool = True) -> str:
        typed = "" if value.type is None and value.shape is None else _type(value.type, value.shape) + " "
        return typed + self._name(value) + (_facts(value) if facts else "")

    def _name(self, value: ir.Value) -> str:
        """The value's name; one without a name gets the first free of v0, v1, …"""
        if value.name is not None:
            return spell_name(value.name)
        if id(value) not in self._names:
            name = next(name for n in range(len(self._taken) + 1) if (name := f"v{n}") not in self._taken)
            self._taken.add(name)
            self._names[id(value)] = name
        return self._names[id(value)]


def _names_in(graph: ir.Graph) -> set[str]:
    values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    return {v.name for v in values if v.name is not None}


def _opsets(imports: Mapping[str, int]) -> str:
    return "opset_import: [" + ", ".join(f"{quote(d)} : {v}" for d, v in sorted(imports.items())) + "]"


def _type(type_: ir.TypeProtocol | None, shape: Iterable[object] | None) -> str:
    """`float[1,N,?]`; no brackets for a scalar, empty ones for an unknown rank."""
    match type_:
        case ir.SequenceType():
            return f"seq({_type(type_.elem_type, shape)})"
        case ir.OptionalType():
            return f"optional({_type(type_.elem_type, shape)})"
        case ir.SparseTensorType():
            return f"sparse_tensor({_type(ir.TensorType(type_.dtype), shape)})"
    dtype = (ir.DataType.UNDEFINED if type_ is None else type_.dtype).name.lower()
    if shape is None:
        return dtype + "[]"
    dims = ",".join(_dim(d) for d in shape)
    return f"{dtype}[{dims}]" if dims else dtype


def _dim(dim: object) -> str:
    if isinstance(dim, ir.SymbolicDim):
        return "?" if dim.value is None else spell_name(str(dim.value))
    return str(dim)


def _facts(site: ir.Node | ir.Value | ir.Graph) -> str:
    """Our metadata, ` !statistics = {…}`: JSON as it is where it is canonical, after a colon and quoted otherwise."""
    found = ((k, v) for k, v in sorted(site.metadata_props.items()) if k.startswith(metadata.PREFIX))
    return "".join(f" !{spell_name(k.removeprefix(metadata.PREFIX))}{_fact(v)}" for k, v in found)


def _fact(text: str) -> str:
    try:
        canonical = json.dumps(json.loads(text), separators=(",", ":"), sort_keys=True) == text
    except (ValueError, RecursionError):
        canonical = False
    return f" = {text}" if canonical else f" : {quote(text)}"


def _parameters(node: ir.Node) -> str:
    """Scale and zero point of a Q/DQ node as a comment, where they are constants: one each, or their extremes."""
    if node.op_type not in _QUANTIZERS or len(node.inputs) < 2 or node.inputs[1] is None:
        return ""
    scale = constant(node.inputs[1], _SCALES)
    if scale is None or scale.size == 0:
        return ""
    low, high = spell_float(float(scale.min())), spell_float(float(scale.max()))
    words = [f"scale {low}" if scale.size == 1 else f"{scale.size} scales {low} to {high}"]
    zero = constant(node.inputs[2], _SCALES) if len(node.inputs) > 2 else None
    if zero is not None and zero.size:
        least, most = int(zero.min()), int(zero.max())
        words.append(
            f"zero point {least} {zero.dtype}" if least == most else f"zero points {least} to {most} {zero.dtype}"
        )
    return "  # " + ", ".join(words)

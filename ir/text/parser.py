"""Text to model: a recursive-descent parser of the official ONNX syntax and what the printer adds to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .. import metadata
from .contents import Contents
from .literals import quote
from .scanner import Scanner
from .scope import Scope

__all__ = ["Parser"]

Array = npt.NDArray[np.generic]

_HEADER = 'a model starts with `<ir_version: 10, opset_import: ["" : 20]>`'
# header field -> type of its value; those of a model, and those of a function
_MODEL_FIELDS = {
    "ir_version": int,
    "opset_import": dict,
    "producer_name": str,
    "producer_version": str,
    "domain": str,
    "model_version": int,
    "doc_string": str,
    "metadata_props": dict,
}
_FUNCTION_FIELDS = {"domain": str, "opset_import": dict, "overload": str, "doc_string": str}
_DEFAULT_IR_VERSION = 10
_KINDS = {kind.name.lower(): kind for kind in ir.AttributeType if kind != ir.AttributeType.UNDEFINED}


class Parser:
    """Parses one text, once."""

    def __init__(self, text: str, weights: Mapping[str, Array], file: str) -> None:
        self.scan = Scanner(text, file)
        self.contents = Contents(self.scan, weights)

    def model(self) -> ir.Model:
        fields = self._header(_MODEL_FIELDS)
        if not fields.get("opset_import"):
            self.scan.fail("the header names no opset_import", _HEADER, 0)
        graph = self._graph(Scope(), fields.pop("opset_import"))
        functions = []
        while self.scan.token == "<":
            functions.append(self._function())
        if self.scan.kind != "end":
            self.scan.fail(f"{self.scan.found()} follows the complete model", "remove it, or close a bracket before it")
        return ir.Model(graph, functions=functions, **({"ir_version": _DEFAULT_IR_VERSION} | fields))

    def _header(self, known: Mapping[str, type]) -> dict[str, Any]:
        """`<key: value, …>` of a model or a function."""
        scan, fields = self.scan, dict[str, Any]()
        if scan.token != "<":
            scan.fail(f"a header was expected, not {scan.found()}", _HEADER)
        scan.advance()
        while not scan.accept(">"):
            if scan.token not in known:
                scan.fail(f"unknown header field {scan.found()}", f"the fields are {', '.join(known)}")
            key = scan.name("a header field")
            scan.expect(":", f"after {key}")
            if known[key] is dict:
                fields[key] = self._entries(str if key == "metadata_props" else int)
            else:
                fields[key] = scan.string(key) if known[key] is str else scan.integer(key)
            scan.separator(">", "between header fields")
        return fields

    def _entries(self, kind: type) -> dict[str, Any]:
        """`["key": value, …]`"""
        scan, entries = self.scan, dict[str, Any]()
        scan.expect("[", "before the list")
        while not scan.accept("]"):
            key = scan.string("a key")
            scan.expect(":", "after the key")
            entries[key] = scan.string("a text") if kind is str else scan.integer("a version")
            scan.separator("]", "between entries")
        return entries

    def _function(self) -> ir.Function:
        fields = self._header(_FUNCTION_FIELDS)
        name = self.scan.name("a function name")
        attributes: dict[str, ir.Attr] = {}
        while self.scan.token == "<":  # names alone and names with a default may be in one pair of brackets or in two
            attributes |= self._attributes(Scope(), declares=True)
        graph = self._body(name, Scope(), fields.get("opset_import", {}))
        domain, overload = fields.get("domain", ""), fields.get("overload", "")
        return ir.Function(domain, name, overload, graph=graph, attributes=attributes)

    def _graph(self, scope: Scope, opsets: dict[str, int] | None = None) -> ir.Graph:
        return self._body(self.scan.name("a graph name"), scope, opsets)

    def _body(self, name: str, scope: Scope, opsets: dict[str, int] | None) -> ir.Graph:
        scan = self.scan
        inputs = self._values(scope, "(", ")")
        scope.defined |= {str(v.name) for v in inputs}
        scan.expect("=>", "between inputs and outputs")
        outputs = self._values(scope, "(", ")")
        facts = self._facts()
        listed = self._values(scope, "<", ">") if scan.token == "<" else []
        initializers = [v for v in (*inputs, *listed) if v.const_value is not None]
        scope.defined |= {str(v.name) for v in initializers}
        nodes = []
        scan.expect("{", "before the nodes")
        while not scan.accept("}"):
            nodes.append(self._node(scope))
        for value in outputs:
            if value.name not in scope.defined:
                what = f"the graph {quote(name)} does not compute its output {quote(str(value.name))}"
                scan.fail(what, "compute it there; Identity passes a value on", scope.first_use[str(value.name)])
        if undefined := scope.resolve():
            hint = "give it a node, an input or an initialiser, or correct the name"
            scan.fail(f"nothing defines the value {quote(undefined[0])}", hint, undefined[1])
        return ir.Graph(
            inputs,
            outputs,
            nodes=nodes,
            initializers=list(dict.fromkeys(initializers)),
            opset_imports=opsets,
            name=name,
            metadata_props=facts,
        )

    def _values(self, scope: Scope, opening: str, closing: str) -> list[ir.Value]:
        """A list of `type name [= contents] [facts]`; the type may be left out where it is not known."""
        scan, values = self.scan, dict[str, ir.Value]()
        scan.expect(opening, "before the list of values")
        while not scan.accept(closing):
            type_, shape = self.contents.type() if self.contents.at_type() else (None, None)
            position = scan.position
            name = scan.name("a value name")
            value = scope.local(name, position)
            value.type = value.type if type_ is None else type_
            value.shape = value.shape if shape is None else shape
            if scan.accept("="):
                if not isinstance(type_, ir.TensorType):
                    scan.fail("an initialiser needs a tensor type", f"write `float[3] {name} = …`", position)
                value.const_value = self.contents.tensor(type_.dtype, shape, name)
                value.shape = ir.Shape(value.const_value.shape.numpy())
            value.metadata_props.update(self._facts())
            if name in values:
                scan.fail(f"the value {quote(name)} is listed twice", "rename one of the two", position)
            values[name] = value
            scan.separator(closing, "between values")
        return list(values.values())

    def _facts(self) -> dict[str, str]:
        """`!name = JSON` or `!name : "text"`: metadata under our prefix."""
        scan, facts = self.scan, dict[str, str]()
        while scan.accept("!"):
            key = metadata.PREFIX + scan.name("the name of a fact")
            if scan.accept("="):
                facts[key] = scan.json()
            else:
                scan.expect(":", "or '=' after the name of a fact")
                facts[key] = scan.string("the fact")
        return facts

    def _node(self, scope: Scope) -> ir.Node:
        scan, label = self.scan, ""
        if scan.accept("["):
            label = scan.name("a node name")
            scan.expect("]", "after the node name")
        words = [(scan.position, scan.name("an output or an operator"))]
        outputs: list[ir.Value] = []
        if scan.token in (",", "="):
            while scan.accept(","):
                words.append((scan.position, scan.name("an output name")))
            scan.expect("=", "between the outputs and the operator")
            outputs = [self._output(scope, name, position) for position, name in words]
            words = [(scan.position, scan.name("an operator"))]
        while scan.accept("."):
            words.append((scan.position, scan.name("an operator")))
        overload = scan.name("an overload") if scan.accept(":") else ""
        attributes = self._attributes(scope) if scan.token == "<" else {}
        inputs = self._inputs(scope)
        attributes |= self._attributes(scope) if scan.token == "<" else {}
        return ir.Node(
            ".".join(word for _, word in words[:-1]),
            words[-1][1],
            inputs,
            attributes,
            overload=overload,
            outputs=outputs,
            name=label or next((v.name for v in outputs if v.name), None),
            metadata_props=self._facts(),
        )

    def _output(self, scope: Scope, name: str, position: int) -> ir.Value:
        if name in scope.defined:
            self.scan.fail(f"the value {quote(name)} is defined twice", "rename one of the two", position)
        if name:
            scope.defined.add(name)
        return scope.local(name, position)

    def _inputs(self, scope: Scope) -> list[ir.Value | None]:
        scan, inputs = self.scan, list[ir.Value | None]()
        scan.expect("(", "before the inputs of the node")
        while not scan.accept(")"):
            position = scan.position
            name = "" if scan.token == "," else scan.name("an input")
            inputs.append(scope.find(name, position) if name else None)
            scan.separator(")", "between inputs")
        return inputs

    def _attributes(self, scope: Scope, declares: bool = False) -> dict[str, ir.Attr]:
        """`<name = value, …>`; where a function declares its own, those without a default are names alone."""
        scan, attributes = self.scan, dict[str, ir.Attr]()
        scan.expect("<", "before the attributes")
        while not scan.accept(">"):
            position = scan.position
            name = scan.name("an attribute name")
            if name in attributes:
                scan.fail(f"the attribute {name} is given twice", "remove one of the two", position)
            if declares and scan.token in (",", ">"):
                attributes[name] = ir.Attr(name, ir.AttributeType.UNDEFINED, None)
            else:
                attributes[name] = self._attribute(name, scope)
            scan.separator(">", "between attributes")
        return attributes

    def _attribute(self, name: str, scope: Scope) -> ir.Attr:
        scan, kind = self.scan, ""
        if scan.accept(":"):
            kind = scan.name("an attribute type")
            if kind not in _KINDS:
                scan.fail(f"{kind!r} is not an attribute type", f"the types are {', '.join(_KINDS)}")
        scan.expect("=", f"after the attribute {name}")
        if scan.accept("@"):
            if not kind:
                scan.fail(f"the reference of {name} needs a type", f"write `{name}: int = @…`")
            return ir.RefAttr(name, scan.name("the attribute referred to"), _KINDS[kind])
        start = scan.position
        if not scan.accept("["):
            found, value = self._item(scope, kind)
            return ir.Attr(name, self._kind(kind, found, start), value)
        items = []
        while not scan.accept("]"):
            items.append(self._item(scope, kind.removesuffix("s")))
            scan.separator("]", "between items")
        kinds = {found for found, _ in items}
        if not kinds and not kind.endswith("s"):
            scan.fail(f"the empty list {name} needs a type", f"write `{name}: ints = []`", start)
        if len(kinds) > 1 and kinds != {"int", "float"}:
            scan.fail(f"the list {name} mixes {' and '.join(sorted(kinds))}", "give items of one type", start)
        found = "floats" if "float" in kinds else next((k + "s" for k in kinds), kind)
        return ir.Attr(name, self._kind(kind, found, start), [value for _, value in items])

    def _kind(self, declared: str, found: str, position: int) -> ir.AttributeType:
        if declared and found != declared:
            self.scan.fail(f"the value is of type {found}, not {declared}", "correct the type or the value", position)
        return _KINDS[found]

    def _item(self, scope: Scope, kind: str) -> tuple[str, Any]:
        """One attribute value and its type; `kind` is the declared type, or empty."""
        scan, token = self.scan, self.scan.token
        if scan.kind == "string" and not scan.followed_by("("):
            return "string", scan.string("a text")
        if scan.kind == "number" or token in ("inf", "nan"):
            scan.advance()
            if kind != "float" and re.fullmatch(r"[-+]?\d+", token):
                return "int", int(token)
            return "float", float(np.float32(token))
        if not self.contents.at_type():
            return "graph", self._graph(Scope(scope))
        type_, shape = self.contents.type()
        if kind == "type_proto":
            return "type_proto", ir.TypeAndShape(type_, shape)
        name = scan.name("a name") if scan.kind in ("name", "string") and scan.followed_by("{") else ""
        scan.accept("=")
        dtype = ir.DataType.UNDEFINED if type_ is None else type_.dtype
        return "tensor", self.contents.tensor(dtype, shape, name)

"""Text to model: a recursive-descent parser of the official ONNX syntax and what the printer adds to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from . import metadata
from .literals import DTYPES, build_tensor, quote, seeded, unquote
from .scanner import Scanner

__all__ = ["Parser"]

Array = npt.NDArray[np.generic]

_REFERENCE = re.compile(r"(?:blake2|hex):[0-9a-f]+")
_HEADER = 'a model starts with `<ir_version: 10, opset_import: ["" : 20]>`'
_WRAPPERS: Mapping[str, Callable[[Any], ir.TypeProtocol]] = {
    "seq": ir.SequenceType,
    "optional": ir.OptionalType,
    "sparse_tensor": lambda inner: ir.SparseTensorType(inner.dtype),
}
_KINDS = {kind.name.lower(): kind for kind in ir.AttributeType if kind != ir.AttributeType.UNDEFINED}


class _Scope:
    """Values of one graph by name; a name used before its definition gets its value at the first use."""

    def __init__(self, parent: _Scope | None = None) -> None:
        self.parent = parent
        self.values: dict[str, ir.Value] = {}
        self.defined: set[str] = set()
        self.used: dict[str, int] = {}  # name -> position of its first use, for names that were unknown there

    def local(self, name: str) -> ir.Value:
        return self.values.setdefault(name, ir.Value(name=name)) if name else ir.Value(name="")

    def find(self, name: str, position: int) -> ir.Value:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        self.used[name] = position
        return self.local(name)


class Parser:
    """Parses one text; `weights` holds the arrays behind `blake2:…`."""

    def __init__(self, text: str, weights: Mapping[str, Array], file: str) -> None:
        self.scan = Scanner(text, file)
        self.weights = weights

    def model(self) -> ir.Model:
        fields = self._fields()
        if "opset_import" not in fields:
            self.scan.fail("the header names no opset_import", _HEADER)
        opsets = fields.pop("opset_import")
        props = fields.pop("metadata_props", {})
        graph = self._graph(None, opsets)
        functions = []
        while self.scan.token == "<":
            functions.append(self._function())
        if self.scan.kind != "end":
            self.scan.fail(f"{self.scan.found()} follows the complete model", "remove it, or close a bracket before it")
        version = fields.pop("ir_version", 10)
        try:
            return ir.Model(graph, ir_version=version, functions=functions, metadata_props=props, **fields)
        except TypeError as error:
            self.scan.fail(f"unknown header field: {error}", _HEADER, 0)

    def _fields(self) -> dict[str, Any]:
        """`<key: value, …>` of a model or a function."""
        scan, fields = self.scan, dict[str, Any]()
        if scan.token != "<":
            scan.fail(f"a header was expected, not {scan.found()}", _HEADER)
        scan.advance()
        while not scan.accept(">"):
            key = scan.name("a header field")
            scan.expect(":", f"after {key}")
            if scan.token == "[":
                fields[key] = self._entries()
            else:
                fields[key] = scan.string(key) if scan.kind == "string" else scan.integer(key)
            if scan.token != ">":
                scan.expect(",", "between header fields")
        return fields

    def _entries(self) -> dict[str, Any]:
        scan, entries = self.scan, dict[str, Any]()
        scan.expect("[", "before the list")
        while not scan.accept("]"):
            key = scan.string("a key")
            scan.expect(":", "after the key")
            entries[key] = scan.string("a text") if scan.kind == "string" else scan.integer("a version")
            if scan.token != "]":
                scan.expect(",", "between entries")
        return entries

    def _graph(self, parent: _Scope | None, opsets: dict[str, int] | None = None) -> ir.Graph:
        return self._body(self.scan.name("a graph name"), _Scope(parent), opsets)

    def _function(self) -> ir.Function:
        fields = self._fields()
        name = self.scan.name("a function name")
        attributes: dict[str, ir.Attr] = {}
        while self.scan.token == "<":  # the names first, those with a default after them or in brackets of their own
            attributes |= self._attributes(_Scope(), placeholders=True)
        graph = self._body(name, _Scope(), fields.get("opset_import", {}))
        return ir.Function(
            fields.get("domain", ""), name, fields.get("overload", ""), graph=graph, attributes=attributes
        )

    def _body(self, name: str, scope: _Scope, opsets: dict[str, int] | None) -> ir.Graph:
        scan = self.scan
        inputs = self._values(scope, "(", ")", defines=True)
        scan.expect("=>", "between inputs and outputs")
        outputs = self._values(scope, "(", ")", defines=False)
        facts = self._facts()
        listed = self._values(scope, "<", ">", defines=False) if scan.token == "<" else []
        initializers = [v for v in (*inputs, *listed) if v.const_value is not None]
        scope.defined |= {str(v.name) for v in initializers}
        nodes = []
        scan.expect("{", "before the nodes")
        while not scan.accept("}"):
            nodes.append(self._node(scope))
        self._resolve(scope)
        results = [v if v.name in scope.defined else scope.find(str(v.name), scan.position) for v in outputs]
        return ir.Graph(
            inputs,
            results,
            nodes=nodes,
            initializers=initializers,
            opset_imports=opsets,
            name=name,
            metadata_props=facts,
        )

    def _resolve(self, scope: _Scope) -> None:
        """Names a graph uses and does not define belong to the graph around it; at the outermost they are errors."""
        for name, value in list(scope.values.items()):
            if name in scope.defined:
                continue
            position = scope.used.get(name, self.scan.position)
            del scope.values[name]
            if scope.parent is not None:
                outer = scope.parent.find(name, position)
                ir.convenience.replace_all_uses_with(value, outer)
            else:
                what = f"nothing defines the value {quote(name)}"
                self.scan.fail(what, "give it a node, an input or an initialiser, or correct the name", position)

    def _values(self, scope: _Scope, opening: str, closing: str, *, defines: bool) -> list[ir.Value]:
        """A list of `type name [= contents] [facts]`; the type may be left out where it is not known."""
        scan, values = self.scan, []
        scan.expect(opening, "before the list of values")
        while not scan.accept(closing):
            type_, shape = self._type() if self._at_type() else (None, None)
            position = scan.position
            name = scan.name("a value name")
            if defines and name in scope.defined:
                scan.fail(f"the value {quote(name)} is defined twice", "rename one of the two", position)
            value = scope.local(name)
            value.type = value.type if type_ is None else type_
            value.shape = value.shape if shape is None else shape
            scope.used.setdefault(name, position)
            if scan.accept("="):
                if not isinstance(type_, ir.TensorType):
                    scan.fail("an initialiser needs a tensor type", f"write `float[3] {name} = …`", position)
                value.const_value = self._tensor(type_.dtype, shape, name)
                value.shape = ir.Shape(value.const_value.shape)
            value.metadata_props.update(self._facts())
            if defines:
                scope.defined.add(name)
            values.append(value)
            if scan.token != closing:
                scan.expect(",", "between values")
        return values

    def _at_type(self) -> bool:
        return self.scan.kind == "name" and (self.scan.token in DTYPES or self.scan.token in _WRAPPERS)

    def _type(self) -> tuple[ir.TypeProtocol | None, ir.Shape | None]:
        scan = self.scan
        if not self._at_type():
            scan.fail(f"a type was expected, not {scan.found()}", f"types are {', '.join(DTYPES)}, seq(…), optional(…)")
        word = scan.name("a type")
        if word in _WRAPPERS:
            scan.expect("(", f"after {word}")
            inner, shape = self._type()
            scan.expect(")", "after the element type")
            return _WRAPPERS[word](inner), shape
        type_ = None if word == "undefined" else ir.TensorType(DTYPES[word])
        if not scan.accept("["):
            return type_, ir.Shape(())
        dims: list[int | str | None] = []
        while not scan.accept("]"):
            if scan.accept("?"):
                dims.append(None)
            else:
                dims.append(scan.integer("a size") if scan.kind == "number" else scan.name("a dimension"))
            if scan.token != "]":
                scan.expect(",", "between dimensions")
        return type_, ir.Shape(dims) if dims else None

    def _tensor(self, dtype: ir.DataType, shape: ir.Shape | None, name: str) -> ir.TensorProtocol:
        scan, start = self.scan, self.scan.position
        reference = scan.match(_REFERENCE)
        words = self._words() if reference is None and scan.token == "{" else None
        if shape is None and words is not None:
            shape = ir.Shape((len(words),))  # `float[] w = {1, 2}`: the rank is left to the contents
        if shape is None or not shape.is_static():
            scan.fail(f"the contents of {quote(name)} need a fixed shape", "write the sizes: `float[4,3] w = …`", start)
        try:
            dims = tuple(int(d) for d in shape)  # type: ignore[arg-type]
            tensor = self._contents(dtype, dims, reference, words)
        except KeyError:
            hint = "give the weights saved with the text, or write seeded(0) or splat(0) instead of the hash"
            scan.fail(f"the contents of {quote(name)} ({reference}) are not in the weights", hint, start)
        except (ValueError, OverflowError) as error:
            hint = "the element count must be the product of the sizes, each in the range of the type"
            scan.fail(f"the contents of {quote(name)} are wrong: {error}", hint, start)
        tensor.name = name
        return tensor

    def _contents(
        self, dtype: ir.DataType, dims: tuple[int, ...], reference: str | None, words: list[str] | None
    ) -> ir.TensorProtocol:
        if words is not None:
            return build_tensor(words, dtype, dims)
        if reference is None:
            return self._generated(dtype, dims)
        if reference.startswith("hex:"):
            return ir.Tensor(np.frombuffer(bytes.fromhex(reference[4:]), dtype.numpy()).reshape(dims), dtype=dtype)
        if reference not in self.weights:
            raise KeyError(reference)
        weights, target = self.weights, dtype.numpy()
        read = lambda: ir.Tensor(weights[reference].view(target).reshape(dims), dtype=dtype)  # noqa: E731
        return ir.LazyTensor(read, dtype, ir.Shape(dims))

    def _generated(self, dtype: ir.DataType, dims: tuple[int, ...]) -> ir.TensorProtocol:
        """`splat(v)`, `seeded(n)` or `seeded(n, low, high)`."""
        scan, start = self.scan, self.scan.position
        how = scan.name("the contents of a tensor")
        if how not in ("splat", "seeded"):
            hint = "write {1, 2, 3}, splat(1), seeded(0), seeded(0, low, high) or blake2:…"
            scan.fail(f"{how!r} is not a way to give the contents of a tensor", hint, start)
        arguments = self._words("(", ")")
        if how == "splat":
            one = build_tensor(arguments, dtype, () if len(arguments) == 1 else (1,))
            return ir.Tensor(np.full(dims, one.numpy()), dtype=dtype)
        if len(arguments) not in (1, 3):
            scan.fail("seeded takes a seed, or a seed and two bounds", "write seeded(0) or seeded(0, -2, 2)", start)
        low, high = (float(a) for a in arguments[1:]) if len(arguments) == 3 else (None, None)
        return ir.Tensor(seeded(int(arguments[0]), dtype, dims, low, high), dtype=dtype)

    def _words(self, opening: str = "{", closing: str = "}") -> list[str]:
        scan, words = self.scan, []
        scan.expect(opening, "before the elements")
        while not scan.accept(closing):
            if scan.kind not in ("number", "string", "name"):
                scan.fail(f"a number or a string was expected, not {scan.found()}", "separate elements by commas")
            words.append(unquote(scan.token) if scan.kind == "string" else scan.token)
            scan.advance()
            if scan.token != closing:
                scan.expect(",", "between elements")
        return words

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

    def _node(self, scope: _Scope) -> ir.Node:
        scan, label = self.scan, ""
        if scan.accept("["):
            label = scan.name("a node name")
            scan.expect("]", "after the node name")
        position = scan.position
        words = [scan.name("an output or an operator")]
        if scan.token in (",", "="):
            positions = [position]
            while scan.accept(","):
                positions.append(scan.position)
                words.append(scan.name("an output name"))
            scan.expect("=", "between the outputs and the operator")
            outputs = [self._output(scope, w, p) for w, p in zip(words, positions, strict=True)]
            words = [scan.name("an operator")]
        else:
            outputs = []
        while scan.accept("."):
            words.append(scan.name("an operator"))
        overload = scan.name("an overload") if scan.accept(":") else ""
        attributes = self._attributes(scope) if scan.token == "<" else {}
        inputs = self._inputs(scope)
        if scan.token == "<":
            attributes |= self._attributes(scope)
        name = label or next((str(v.name) for v in outputs if v.name), None)
        return ir.Node(
            ".".join(words[:-1]),
            words[-1],
            inputs,
            attributes,
            overload=overload,
            outputs=outputs,
            name=name,
            metadata_props=self._facts(),
        )

    def _output(self, scope: _Scope, name: str, position: int) -> ir.Value:
        if name in scope.defined:
            self.scan.fail(f"the value {quote(name)} is defined twice", "rename one of the two", position)
        if name:
            scope.defined.add(name)
        return scope.local(name)

    def _inputs(self, scope: _Scope) -> list[ir.Value | None]:
        scan, inputs = self.scan, list[ir.Value | None]()
        scan.expect("(", "before the inputs of the node")
        while not scan.accept(")"):
            if scan.token == ",":  # an omitted input
                inputs.append(None)
            else:
                position = scan.position
                name = scan.name("an input")
                inputs.append(scope.find(name, position) if name else None)
            if scan.token != ")":
                scan.expect(",", "between inputs")
        return inputs

    def _attributes(self, scope: _Scope, placeholders: bool = False) -> dict[str, ir.Attr]:
        """`<name = value, …>`; a function's own attributes without a default are names alone."""
        scan, attributes = self.scan, dict[str, ir.Attr]()
        scan.expect("<", "before the attributes")
        while not scan.accept(">"):
            position = scan.position
            name = scan.name("an attribute name")
            if name in attributes:
                scan.fail(f"the attribute {name} is given twice", "remove one of the two", position)
            if placeholders and scan.token in (",", ">"):
                attributes[name] = ir.Attr(name, ir.AttributeType.UNDEFINED, None)
            else:
                attributes[name] = self._attribute(name, scope)
            if scan.token != ">":
                scan.expect(",", "between attributes")
        return attributes

    def _attribute(self, name: str, scope: _Scope) -> ir.Attr:
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
            if scan.token != "]":
                scan.expect(",", "between items")
        kinds = {found for found, _ in items}
        found = "float" if kinds == {"int", "float"} else next(iter(kinds), "")
        if not kind and not found:
            scan.fail(f"the empty list {name} needs a type", f"write `{name}: ints = []`", start)
        return ir.Attr(name, self._kind(kind, found + "s" if found else kind, start), [value for _, value in items])

    def _kind(self, declared: str, found: str, position: int) -> ir.AttributeType:
        if declared and found != declared and not (found.startswith("int") and declared.startswith("float")):
            self.scan.fail(f"the value is of type {found}, not {declared}", "correct the type or the value", position)
        return _KINDS[declared or found]

    def _item(self, scope: _Scope, kind: str) -> tuple[str, Any]:
        """One attribute value and its type; `kind` is the declared type, or empty."""
        scan, token = self.scan, self.scan.token
        if scan.kind == "string" and not scan.followed_by("("):
            return "string", scan.string("a text")
        if scan.kind == "number" or token in ("inf", "nan"):
            scan.advance()
            if re.fullmatch(r"[-+]?\d+", token):
                return ("float", float(token)) if kind == "float" else ("int", int(token))
            return "float", float(np.float32(token))
        if self._at_type():
            type_, shape = self._type()
            if kind == "type_proto":
                return "type_proto", ir.TypeAndShape(type_, shape)
            name = scan.name("a name") if scan.kind in ("name", "string") and scan.followed_by("{") else ""
            scan.accept("=")
            return "tensor", self._tensor((type_ or ir.TensorType(ir.DataType.UNDEFINED)).dtype, shape, name)
        return "graph", self._graph(scope)

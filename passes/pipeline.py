"""Pipeline text: `a,b{key=value flag},fixpoint{steps=4}(c,d)` to passes and back; YAML says the same.

pipeline := element ("," element)*
element  := name [ "{" option (" " option)* "}" ] [ "(" pipeline ")" ]
option   := key "=" value | key            (a bare key is `true`)
value    := word | '"' text '"' | "[" value ("," value)* "]"
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError

__all__ = ["Element", "coerce_options", "element_from_yaml", "format_value", "option_names", "parse_text"]

_TOKEN = re.compile(r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<word>[^\s,{}()\[\]="]+)|(?P<mark>[,{}()\[\]=]))')
_GRAMMAR = 'write passes as "name{option=value other=value},name"; `ir-opt --list-passes` shows the names'


@dataclass(frozen=True)
class Element:
    """One pass named in a pipeline, its options as written, and the passes nested in it."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    inner: tuple[Element, ...] | None = None


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                position = len(text) - len(text[position:].lstrip())
                self.fail(position, f"unexpected character {text[position]!r}")
            kind = str(match.lastgroup)
            self.tokens.append((kind, match.group(kind), match.start(kind)))
            position = match.end()
        self.index = 0

    def fail(self, position: int, what: str) -> typing.NoReturn:
        pointer = f"{self.text!r} at column {position + 1}"
        raise UsageError(f"the pipeline text does not parse: {what}", where=pointer, hint=_GRAMMAR)

    def peek(self) -> str:
        return self.tokens[self.index][1] if self.index < len(self.tokens) else ""

    def take(self, expected: str = "") -> tuple[str, str, int]:
        if self.index >= len(self.tokens):
            self.fail(len(self.text), f"it ends where {expected or 'more'!r} was expected")
        token = self.tokens[self.index]
        if expected and token[1] != expected:
            self.fail(token[2], f"{expected!r} was expected, not {token[1]!r}")
        self.index += 1
        return token

    def pipeline(self) -> tuple[Element, ...]:
        elements = [self.element()]
        while self.peek() == ",":
            self.take(",")
            elements.append(self.element())
        return tuple(elements)

    def element(self) -> Element:
        kind, name, position = self.take()
        if kind != "word":
            self.fail(position, f"a pass name was expected, not {name!r}")
        options: list[tuple[str, Any]] = []
        if self.peek() == "{":
            self.take("{")
            while self.peek() != "}":
                options.append(self.option())
            self.take("}")
        inner = None
        if self.peek() == "(":
            self.take("(")
            inner = self.pipeline()
            self.take(")")
        return Element(name, tuple(options), inner)

    def option(self) -> tuple[str, Any]:
        kind, key, position = self.take()
        if kind != "word":
            self.fail(position, f"an option name was expected, not {key!r}")
        if self.peek() != "=":
            return key, True
        self.take("=")
        return key, self.value()

    def value(self) -> Any:
        kind, text, position = self.take()
        if kind == "string":
            return re.sub(r"\\(.)", r"\1", text[1:-1])
        if kind == "word":
            return text
        if text != "[":
            self.fail(position, f"a value was expected, not {text!r}")
        items: list[Any] = []
        while self.peek() != "]":
            items.append(self.value())
            if self.peek() == ",":
                self.take(",")
        self.take("]")
        return tuple(items)


def parse_text(text: str) -> tuple[Element, ...]:
    """Parse pipeline text; UsageError names the column where it stops making sense."""
    parser = _Parser(text)
    if not parser.tokens:
        return ()
    elements = parser.pipeline()
    if parser.index < len(parser.tokens):
        _, token, position = parser.tokens[parser.index]
        parser.fail(position, f"{token!r} follows a complete pipeline")
    return elements


def element_from_yaml(item: object, where: str) -> Element:
    """One entry of a YAML pipeline: `name`, or `{name: {option: value, passes: [...]}}`."""
    if isinstance(item, str):
        parsed = parse_text(item)
        if len(parsed) == 1:
            return parsed[0]
    ((name, options),) = item.items() if isinstance(item, Mapping) and len(item) == 1 else ((None, None),)
    if name is not None and (options is None or isinstance(options, Mapping)):
        options = dict(options or {})
        inner = options.pop("passes", None)
        if inner is None or isinstance(inner, list):
            nested = None if inner is None else tuple(element_from_yaml(i, where) for i in inner)
            return Element(str(name), tuple((str(k), _from_yaml_value(v)) for k, v in options.items()), nested)
    raise UsageError(
        f"a pipeline entry must be a pass name or one `name: {{option: value}}`, not {item!r}",
        where=where,
        hint="see docs/pipelines.md for the YAML form",
    )


def _from_yaml_value(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_from_yaml_value(v) for v in value)
    return value


def format_value(value: object) -> str:
    """A value as pipeline text, such that parsing it gives the value back."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, (tuple, list)):
        return "[" + ",".join(format_value(v) for v in value) + "]"
    text = str(value)
    if isinstance(value, str) and not re.fullmatch(r'[^\s,{}()\[\]="\\]+', text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def option_names(cls: type[Any]) -> list[str]:
    """The options of a pass dataclass as they are written; the passes nested in a fixpoint are not an option."""
    return sorted(f.name.replace("_", "-") for f in dataclasses.fields(cls) if f.name != "passes")


def coerce_options(cls: type[Any], options: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The written options as keyword arguments of the pass dataclass, converted by each field's type."""
    hints = typing.get_type_hints(cls)
    fields = {name: name.replace("-", "_") for name in option_names(cls)}
    result: dict[str, Any] = {}
    for key, value in options:
        field = fields.get(key.replace("_", "-"))
        if field in result:
            what = f"the option {key!r} of {cls.name} is given twice"
            raise UsageError(what, where=f"pipeline element {cls.name}", hint="keep one of them")
        if field is None:
            raise UsageError(
                f"the pass {cls.name} has no option {key!r}",
                where=f"pipeline element {cls.name}",
                hint=f"its options are: {', '.join(option_names(cls)) or 'none'}",
            )
        try:
            result[field] = _coerce(value, hints[field])
        except (ValueError, TypeError) as error:
            wanted = _type_name(hints[field])
            raise UsageError(
                f"{value!r} is not a valid value for option {key!r} of {cls.name}",
                where=f"pipeline element {cls.name}",
                hint=f"it wants {wanted}" + ("" if wanted in str(error) else f": {error}"),
            ) from error
    return result


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return getattr(hint, "__name__", str(hint))


def _coerce(value: Any, hint: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if types.NoneType in args and (value is None or value == "none"):
            return None
        errors = []
        for option in (a for a in args if a is not types.NoneType):
            try:
                return _coerce(value, option)
            except (ValueError, TypeError) as error:
                errors.append(str(error))
        raise ValueError("; ".join(errors))
    if origin is typing.Literal:
        for choice in args:
            if format_value(value) == format_value(choice):
                return choice
        raise ValueError(f"not {_type_name(hint)}")
    if origin is tuple:
        items = value if isinstance(value, (tuple, list)) else (value,)
        kinds = [args[0]] * len(items) if args[1:] in ((), (...,)) else args
        return tuple(_coerce(v, kind) for v, kind in zip(items, kinds, strict=True))
    if hint is bool:
        text = str(value).lower()
        if text not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
            raise ValueError("not true or false")
        return text in ("true", "1", "yes", "on")
    if hint in (int, float, str):
        if value is None or isinstance(value, (bool, tuple)):
            raise ValueError("a single value is wanted")
        if hint is int and value != int(value) and not isinstance(value, str):
            raise ValueError("not a whole number")
        return hint(value)
    raise TypeError(f"options of type {hint} cannot be written in pipeline text")

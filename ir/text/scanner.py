"""Tokens of the text form, and the place of an error in it."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from ...errors import ModelError
from .literals import unquote

__all__ = ["Scanner"]

_SPACE = re.compile(r"(?:\s++|#[^\n]*+|//[^\n]*+)*+")  # possessive: nothing in it is tried twice
_TOKEN = re.compile(
    _SPACE.pattern + r'(?:(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<number>[-+]?(?:inf\b|nan\b|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<mark>=>|[-<>()\[\]{},:=.@!?])"
    r"|(?P<end>\Z))"
)


class Scanner:
    """Reads tokens one after the other; `kind` and `token` are the one to be read next ("end" and "" at the end)."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.position = 0  # where the next token starts
        self.kind = ""
        self.token = ""
        self._end = 0
        self.advance()

    def advance(self, start: int | None = None) -> None:
        """Go to the next token, or to the first one at or after `start`."""
        start = self._end if start is None else start
        match = _TOKEN.match(self.text, start)
        if match is None:
            self.position = self._after_space(start)
            self.fail(f"unexpected character {self.text[self.position]!r}", "check the quotes and brackets before it")
        self.kind = str(match.lastgroup)
        self.token = match[self.kind]
        self.position, self._end = match.span(self.kind)

    def _after_space(self, start: int) -> int:
        return _SPACE.match(self.text, start).end()  # type: ignore[union-attr]

    def fail(self, what: str, hint: str, position: int | None = None) -> NoReturn:
        """Raise the ModelError that names line and column."""
        position = self.position if position is None else position
        line = self.text.count("\n", 0, position) + 1
        column = position - (self.text.rfind("\n", 0, position) + 1) + 1
        source = self.text.split("\n")[line - 1].strip()
        where = f"{self.file}, line {line}, column {column}" + (f": {source[:120]}" if source else "")
        raise ModelError(f"the model text does not parse: {what}", where=where, hint=hint)

    def found(self) -> str:
        """The next token as it is named in a message."""
        return repr(self.token) if self.token else "the end of the text"

    def accept(self, mark: str) -> bool:
        """Take the next token when it is this mark."""
        if self.kind in ("mark", "name") and self.token == mark:
            self.advance()
            return True
        return False

    def expect(self, mark: str, where: str) -> None:
        if not self.accept(mark):
            self.fail(
                f"{mark!r} was expected {where}, not {self.found()}", f"add {mark!r} here, or remove what precedes it"
            )

    def separator(self, closing: str, where: str) -> None:
        """Take the comma between two entries of a list; none is needed before the closing bracket."""
        if self.token != closing or self.kind != "mark":
            self.expect(",", where)

    def name(self, what: str) -> str:
        """An identifier, plain or quoted."""
        if self.kind not in ("name", "string"):
            self.fail(
                f"{what} was expected, not {self.found()}",
                'names with other characters than A–Z a–z 0–9 _ need "quotes"',
            )
        token = unquote(self.token) if self.kind == "string" else self.token
        self.advance()
        return token

    def string(self, what: str) -> str:
        if self.kind != "string":
            self.fail(f"{what} in double quotes was expected, not {self.found()}", 'write "text"')
        return self.name(what)

    def integer(self, what: str) -> int:
        if self.kind != "number" or not re.fullmatch(r"[-+]?\d+", self.token):
            self.fail(f"{what}, an integer, was expected, not {self.found()}", "write a decimal integer")
        token = self.token
        self.advance()
        return int(token)

    def match(self, pattern: re.Pattern[str]) -> str | None:
        """Take what matches the pattern at the next token, whole or in part; None when nothing does."""
        match = pattern.match(self.text, self.position)
        if match is None:
            return None
        self.advance(match.end())
        return match.group()

    def followed_by(self, mark: str) -> bool:
        """True when the token after the next one starts with `mark`."""
        return self.text.startswith(mark, self._after_space(self._end))

    def json(self) -> str:
        """Take one JSON value and return its canonical text."""
        start = self.position
        try:
            value, end = json.JSONDecoder().raw_decode(self.text, start)
        except (ValueError, RecursionError) as error:
            self.fail(f"the fact is not JSON: {error}", "write JSON after `=`, or any text in quotes after `:`")
        self.advance(end)
        return json.dumps(value, separators=(",", ":"), sort_keys=True)

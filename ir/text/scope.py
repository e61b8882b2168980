"""Names to values while a graph is parsed."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["Scope"]


class Scope:
    """Values of one graph by name; a name used before its definition gets its value at the first use.

    defined: names of inputs, initialisers and node outputs. first_use: where a name was met first.
    """

    def __init__(self, parent: Scope | None = None) -> None:
        self.parent = parent
        self.values: dict[str, ir.Value] = {}
        self.defined: set[str] = set()
        self.first_use: dict[str, int] = {}

    def local(self, name: str, position: int) -> ir.Value:
        """The value of this graph with that name, new where there is none; an empty name is never shared."""
        if not name:
            return ir.Value(name="")
        self.first_use.setdefault(name, position)
        return self.values.setdefault(name, ir.Value(name=name))

    def find(self, name: str, position: int) -> ir.Value:
        """The value that the name means here: of this graph, or of the nearest one around it that has it."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        return self.local(name, position)

    def resolve(self) -> tuple[str, int] | None:
        """Hand what this graph does not define to the one around it; at the outermost, return the first such name."""
        for name in [n for n in self.values if n not in self.defined]:
            position = self.first_use[name]
            if self.parent is None:
                return name, position
            ir.convenience.replace_all_uses_with(self.values.pop(name), self.parent.find(name, position))
        return None

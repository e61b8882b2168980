"""What expressions of PrimFuncs are made of."""

from __future__ import annotations

from typing import Any

__all__ = ["is_choice", "operands"]

_PARTS = ("a", "b", "value", "condition", "true_value", "false_value")  # of one kind of expression or another


def operands(value: Any) -> list[Any]:
    """The expressions that an expression is made of, from left to right."""
    parts = [getattr(value, name, None) for name in _PARTS]
    return [part for part in (*parts, *getattr(value, "args", ())) if hasattr(part, "ty")]


def is_choice(value: Any) -> bool:
    """A call of `if_then_else`: a condition and two values."""
    return str(getattr(getattr(value, "op", None), "name", "")).endswith("if_then_else")

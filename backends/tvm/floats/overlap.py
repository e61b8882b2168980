"""Blocks of loops that do not divide an extent: the last one begins where it ends with the extent.

What it computes a second time has the same bits, and nothing is left over or checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..blocks import exchanged, with_root

__all__ = ["index_type", "overlapped", "started", "substituted"]

# what counts blocks, and where the last of them begins
Last = Sequence[tuple[Any, int]]


def overlapped(function: Any, blocks: Sequence[tuple[Any, int, int]]) -> Any:
    """A scheduled PrimFunc whose loops count blocks of a size in an extent, each given as (variable, size, extent)."""
    from tvm import s_tir

    last = [(count, extent - size) for count, size, extent in blocks if extent % size]
    if not last:
        return function

    def moved(realize: Any) -> Any:
        starts = [started(value, last) for value in realize.iter_values]
        same = all(a.same_as(b) for a, b in zip(starts, realize.iter_values, strict=True))
        return s_tir.SBlockRealize(starts, realize.predicate if same else True, realize.block)

    return with_root(function, body=exchanged(function.body.block.body, moved))


def started(value: Any, last: Last) -> Any:
    """An index with the starts of blocks in it, of which the last ones are brought back."""
    from tvm import tirx

    for count, start in last:
        if isinstance(value, tirx.Mul) and value.a.same_as(count):
            return tirx.min(value, tirx.const(start, index_type(count)))
    if last and hasattr(value, "a") and hasattr(value, "b"):
        return type(value)(started(value.a, last), started(value.b, last))
    return value


def index_type(variable: Any) -> str:
    """The type of an index."""
    return str(variable.ty.dtype)


def substituted(value: Any, known: Mapping[Any, Any]) -> Any:
    """An index with other expressions in the places of variables."""
    for variable, other in known.items():
        if value.same_as(variable):
            return other
    if hasattr(value, "a") and hasattr(value, "b"):
        return type(value)(substituted(value.a, known), substituted(value.b, known))
    return value

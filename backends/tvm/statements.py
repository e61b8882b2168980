"""The lines of C that run a model's calls: in order, and for a team of threads as statements that its members share.

What members share is numbered alike by all of them, whichever way they go: loops have a known number of trips, and a
branch that is not taken is a number of statements that the team passes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from .control import Block, Close, Open

__all__ = ["Statement", "ordered"]


@dataclass(frozen=True)
class Statement:
    """A call without its semicolon and, where threads share its loop, the loop's iterations; or an edge of a block."""

    text: str
    extent: int | None
    edge: Open | Close | None = None


@dataclass(frozen=True)
class _Nest:
    """A block: how it begins in C, and what is in it."""

    text: str
    block: Block
    body: tuple[Statement | _Nest, ...]

    @property
    def statements(self) -> int:
        """Statements that the members number, if it is taken."""
        inside = sum(_count(shared, group) for shared, group in _grouped(self.body))
        return inside * self.block.trips if self.block.condition is None else 1 + inside


def ordered(statements: Sequence[Statement], *, team: bool) -> Iterator[str]:
    """The statements as a thread runs them, or each member of a team."""
    if not team:
        yield from (statement.text + ("" if statement.edge else ";") for statement in statements)
        return
    yield "walk_t walk = {team, t, first, 0};"
    yield from _walked(_nested(iter(statements)))


def _nested(statements: Iterator[Statement]) -> tuple[Statement | _Nest, ...]:
    """What comes up to the end of the block, inner blocks as one."""
    found: list[Statement | _Nest] = []
    for statement in statements:
        if isinstance(statement.edge, Close):
            break
        opened = statement.edge
        found.append(statement if opened is None else _Nest(statement.text, opened.block, _nested(statements)))
    return tuple(found)


def _shared(item: Statement | _Nest) -> bool:
    """Whether threads share anything in it."""
    return any(map(_shared, item.body)) if isinstance(item, _Nest) else item.extent is not None


def _grouped(body: Sequence[Statement | _Nest]) -> Iterator[tuple[bool, list[Statement | _Nest]]]:
    return ((shared, list(group)) for shared, group in groupby(body, _shared))


def _count(shared: bool, group: Sequence[Statement | _Nest]) -> int:
    return sum(item.statements if isinstance(item, _Nest) else 1 for item in group) if shared else 1


def _walked(body: Sequence[Statement | _Nest]) -> Iterator[str]:
    """The lines that each member runs; what is not shared and follows each other is one statement."""
    for shared, group in _grouped(body):
        if not shared:
            yield f"{_taken(1)} {{"
            yield from (f"  {line}" for item in group for line in _alone(item))
            yield "}"
            continue
        for item in group:
            yield from _together(item)


def _together(item: Statement | _Nest) -> Iterator[str]:
    """What threads share."""
    if isinstance(item, Statement):
        yield _taken(item.extent or 0)
        yield f"  {item.text[:-1]}, range.start, range.stop);"
    elif item.block.condition is None:
        yield item.text
        yield from (f"  {line}" for line in _walked(item.body))
        yield "}"
    else:
        yield f"{_taken(1)} {{"
        yield f"  range.skip = {item.statements - 1};"
        yield f"  {item.text} range.skip = 0; }}"
        yield "}"
        yield from _walked(item.body)


def _alone(item: Statement | _Nest) -> Iterator[str]:
    """What one thread runs."""
    if isinstance(item, Statement):
        yield f"{item.text};"
        return
    yield item.text
    yield from (f"  {line}" for inner in item.body for line in _alone(inner))
    yield "}"


def _taken(extent: int) -> str:
    return f"for (range_t range = {{0}}; take(&walk, {extent}, &range);)"

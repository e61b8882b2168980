"""Blocks of calls that run several times or on a condition, and parts of tensors that their iterations read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Block", "Close", "Open", "Slice", "address", "lifetimes", "walk"]


@dataclass(frozen=True)
class Block:
    """Calls number first ≤ k < stop: `trips` times, `variable` counting, or where a bool is `taken`.

    condition: the tensor of that bool; None for a loop.
    """

    first: int
    stop: int
    variable: str = ""
    trips: int = 1
    condition: str | None = None
    taken: bool = True


@dataclass(frozen=True)
class Slice:
    """Where a tensor begins in the one that it is part of: offset + stride · variable bytes; no variable, no stride."""

    offset: int
    stride: int = 0
    variable: str = ""


@dataclass(frozen=True)
class Open:
    """The calls of a block begin."""

    block: Block


@dataclass(frozen=True)
class Close:
    """The calls of a block end."""

    block: Block


def walk(blocks: Sequence[Block], count: int) -> Iterator[int | Open | Close]:
    """The numbers of all calls, with the beginnings and ends of blocks between them; blocks are listed inner first."""
    ranked = [(rank, block) for rank, block in enumerate(blocks) if block.first < block.stop]
    for call in range(count):
        for _, block in sorted((p for p in ranked if p[1].first == call), key=lambda p: (-p[1].stop, -p[0])):
            yield Open(block)
        yield call
        for _, block in sorted((p for p in ranked if p[1].stop == call + 1), key=lambda p: (-p[1].first, p[0])):
            yield Close(block)


def address(
    name: str, views: Mapping[str, str], slices: Mapping[str, Slice], pointers: Mapping[str, str], cast: str
) -> str:
    """The C expression of where a tensor lies; pointers: those of whole tensors, which `cast` makes addable."""
    terms: list[str] = []
    while name in views:
        if name in slices:
            part = slices[name]
            terms += [str(part.offset)] if part.offset else []
            terms += [f"{part.stride} * {part.variable}"] if part.stride else []
        name = views[name]
    return " + ".join([f"{cast}({pointers[name]})", *terms]) if terms else pointers[name]


def lifetimes(
    first: dict[str, int], last: dict[str, int], blocks: Sequence[Block], storage: Callable[[str], str]
) -> None:
    """Extend lives in place: what lives on either side of a loop lives in all of it, a condition until its block ends.

    storage: whose bytes a tensor's are. Tensors that one iteration makes and uses keep their lives.
    """
    for block in blocks:  # inner first, so that what an inner loop extends is seen by the outer one
        if block.condition is not None:
            name = storage(block.condition)
            if name in last:
                last[name] = max(last[name], block.stop - 1)
            continue
        for name in first:
            begin, end = first[name], last[name]
            touched = begin < block.stop and end >= block.first
            if touched and (begin < block.first or end >= block.stop):
                first[name], last[name] = min(begin, block.first), max(end, block.stop - 1)

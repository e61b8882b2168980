"""Static memory plan: every tensor and every workspace at an offset in one arena."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .control import lifetimes
from .program import ALIGNMENT, Call, Program

__all__ = ["place"]


@dataclass(frozen=True)
class _Buffer:
    """Bytes that live from call `start` to call `stop`: of a tensor, or of a workspace of a call."""

    size: int
    start: int
    stop: int
    owner: tuple[int, str]

    def meets(self, other: _Buffer) -> bool:
        """Both live at some call."""
        return self.start <= other.stop and other.start <= self.stop


Plan = Callable[[Sequence[_Buffer]], tuple[dict[tuple[int, str], int], int]]  # largest first: offsets, and bytes in all


def place(program: Program, threads: int = 1) -> tuple[dict[str, int], list[tuple[int, ...]], int]:
    """Offsets of working tensors in one arena, of each call's workspaces, and the arena's size.

    A tensor lives from the call that writes it to the last that reads it or a view of it.
    """
    outside = {t.name for t in program.inputs} | {t.name for t in program.outputs} | set(program.constants)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for step, call in enumerate(program.calls):
        for name in (*call.reads, *call.writes):
            storage = program.storage(name)
            if storage not in outside:
                first.setdefault(storage, step)
                last[storage] = step
    lifetimes(first, last, program.blocks, program.storage)
    buffers = [_Buffer(_round(program.tensors[n].bytes), first[n], last[n], (0, n)) for n in first]
    for step, call in enumerate(program.calls):
        for k, size in enumerate(_workspaces(program, call)):
            buffers.append(_Buffer(_round(size), step, step, (1, f"{step}:{k}")))
    buffers.sort(key=lambda b: (-b.size, b.start, b.owner))
    plan: Plan = _packed if threads == 1 else _centred
    offsets, size = plan(buffers)
    scratch = [
        tuple(offsets[1, f"{step}:{k}"] for k in range(len(_workspaces(program, call))))
        for step, call in enumerate(program.calls)
    ]
    return {name: offsets[0, name] for name in first}, scratch, size


def _packed(buffers: Sequence[_Buffer]) -> tuple[dict[tuple[int, str], int], int]:
    """Each at the lowest offset that is free for its whole life (greedy by size, Pisarchyk & Lee 2020, section 5)."""
    placed: list[tuple[int, int, _Buffer]] = []
    offsets: dict[tuple[int, str], int] = {}
    for buffer in buffers:
        offset = 0
        for low, high, other in sorted(placed, key=lambda p: p[:2]):
            if buffer.meets(other):
                if offset + buffer.size <= low:
                    break
                offset = max(offset, high)
        offsets[buffer.owner] = offset
        placed.append((offset, offset + buffer.size, buffer))
    return offsets, max((high for _, high, _ in placed), default=0)


def _centred(buffers: Sequence[_Buffer]) -> tuple[dict[tuple[int, str], int], int]:
    """Buffers that never live together share a region, and its middle is the middle of each.

    Two threads that share every loop in halves so write the same memory all the time, and it stays in their caches.
    It takes more memory than `_packed` does.
    """
    regions: list[list[_Buffer]] = []
    for buffer in buffers:
        free = (region for region in regions if not any(map(buffer.meets, region)))
        region = next(free, None)
        if region is None:
            regions.append([buffer])
        else:
            region.append(buffer)
    offsets: dict[tuple[int, str], int] = {}
    start = 0
    for region in regions:
        largest = region[0].size
        for buffer in region:
            offsets[buffer.owner] = start + (largest - buffer.size) // 2 // ALIGNMENT * ALIGNMENT
        start += largest
    return offsets, start


def _round(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _workspaces(program: Program, call: Call) -> tuple[int, ...]:
    interface = program.interfaces.get(call.kernel or "")
    return () if interface is None else interface.workspaces

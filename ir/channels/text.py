"""Groups as text, one block each: units, what keeps them, and every parameter axis they run through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .atoms import IntArray
from .groups import Channels, Group, Member

__all__ = ["format_groups", "group_lines", "prunable_share"]

_VERBS = {"out": "makes", "in": "reads", "each": "scales"}


def group_lines(group: Group) -> list[str]:
    """`group conv1.weight: 16 units` and, indented, its places with the positions there."""
    state = f", frozen: {group.frozen}" if group.frozen else f", inexact: {group.inexact}" if group.inexact else ""
    return [f"group {group.name}: {len(group)} unit{'s' * (len(group) > 1)}{state}", *map(_place, group.members)]


def _place(member: Member) -> str:
    each = f", {member.positions.shape[1]} each" if member.positions.shape[1] > 1 else ""
    shape = list(member.value.shape or ())
    return f"  {_VERBS[member.role]} {member.value.name}{shape} axis {member.axis} [{_ranges(member.positions)}{each}]"


def _ranges(positions: IntArray) -> str:
    """`0…1, 4…5`: the positions as runs."""
    flat = np.unique(positions)
    runs = np.split(flat, np.flatnonzero(np.diff(flat) > 1) + 1)
    return ", ".join(f"{r[0]}" if len(r) == 1 else f"{r[0]}…{r[-1]}" for r in runs)


def format_groups(channels: Channels) -> str:
    """All groups of a model, in order of first appearance."""
    return "\n".join(line for group in channels.groups for line in group_lines(group))


def prunable_share(groups: Sequence[Group]) -> float:
    """Units that can be removed exactly, as a share of all units."""
    total = sum(len(g) for g in groups)
    return sum(len(g) for g in groups if not g.frozen and not g.inexact) / total if total else 0.0

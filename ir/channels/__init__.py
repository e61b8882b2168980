"""Channel dependency groups: which positions of which tensors must be removed together, and their removal."""

from __future__ import annotations

from .groups import Channels, Group, Member, analyze
from .labelling import Field, Labelling
from .remove import remove, zero
from .text import format_groups, group_lines, prunable_share

__all__ = [
    "Channels",
    "Field",
    "Group",
    "Labelling",
    "Member",
    "analyze",
    "format_groups",
    "group_lines",
    "prunable_share",
    "remove",
    "zero",
]

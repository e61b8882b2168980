"""`Compiled`: what a back end hands to the driver: files, where each node runs and why, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Compiled", "Placement"]


@dataclass(frozen=True)
class Placement:
    """Where one node runs: `dtype` is "int8" or "float32" (the arithmetic), `where` the kernel family."""

    node: str
    op: str
    dtype: str
    where: str
    reason: str = ""


@dataclass(frozen=True)
class Compiled:
    """The result of compiling one model for one target; sizes in bytes.

    arena_bytes: working memory of one run; code_bytes: the kernels' object file; weight_bytes: read-only data.
    tuning: the account of a search for faster kernels, where there was one.
    """

    files: dict[str, bytes]
    placement: list[Placement]
    arena_bytes: int
    code_bytes: int
    weight_bytes: int
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    tuning: Mapping[str, Any] | None = None

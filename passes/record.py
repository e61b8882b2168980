"""What a pass did: `matched = changed + Σ skipped[reason]`, node by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

__all__ = ["Change", "Record", "Skip"]

Site = ir.Node | ir.Value | str


@dataclass(frozen=True)
class Change:
    """One rewrite that was applied: the site's name, its operator, and what was done in a few words."""

    site: str
    op: str
    detail: str = ""


@dataclass(frozen=True)
class Skip:
    """One candidate that was left alone, with the reason."""

    site: str
    op: str
    reason: str


def _describe(site: Site) -> tuple[str, str]:
    if isinstance(site, ir.Node):
        name = site.name or next((v.name for v in site.outputs if v.name), None)
        return name or "?", site.op_type
    if isinstance(site, ir.Value):
        return site.name or "?", "value"
    return site, ""


@dataclass
class Record:
    """The account of one pass over one model.

    `permit` is asked before every rewrite; bisection uses it to stop after the N-th rewrite of a pipeline.
    """

    pass_name: str = ""
    spec: str = ""
    exact: bool = True
    changes: list[Change] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    measures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    permit: Callable[[], bool] = field(default=lambda: True, repr=False)

    def change(self, site: Site, detail: str = "") -> bool:
        """Announce a rewrite and say whether it may go ahead: `if record.change(node): rewrite(node)`."""
        name, op = _describe(site)
        if not self.permit():
            self.skips.append(Skip(name, op, "beyond the bisection limit"))
            return False
        self.changes.append(Change(name, op, detail))
        return True

    def skip(self, site: Site, reason: str) -> None:
        """Record a candidate that was left alone, and why."""
        self.skips.append(Skip(*_describe(site), reason))

    def retract(self, site: Site, reason: str) -> None:
        """Turn a change that was announced into a skip: what came of it was not good enough."""
        name, op = _describe(site)
        self.changes = [c for c in self.changes if (c.site, c.op) != (name, op)]
        self.skips.append(Skip(name, op, reason))

    def note(self, text: str) -> None:
        """Record something the user should read that belongs to no single node."""
        self.notes.append(text)

    @property
    def matched(self) -> int:
        return len(self.changes) + len(self.skips)

    @property
    def changed(self) -> int:
        return len(self.changes)

    @property
    def skipped(self) -> dict[str, int]:
        """Number of skipped candidates for each reason."""
        return dict(Counter(s.reason for s in self.skips))

    def why_nothing(self) -> str:
        """The reason a pass changed nothing, in one line; empty when it did change something."""
        if self.changes:
            return ""
        if not self.skips:
            return "no candidate in the model"
        return "; ".join(f"{reason} ({n}×)" if n > 1 else reason for reason, n in self.skipped.items())

    def to_json(self) -> dict[str, Any]:
        return {
            "pass": self.pass_name,
            "spec": self.spec,
            "exact": self.exact,
            "matched": self.matched,
            "changed": self.changed,
            "skipped": self.skipped,
            "why_nothing": self.why_nothing(),
            "changes": [{"site": c.site, "op": c.op, "detail": c.detail} for c in self.changes],
            "skips": [{"site": s.site, "op": s.op, "reason": s.reason} for s in self.skips],
            "notes": self.notes,
            "measures": self.measures,
            "seconds": round(self.seconds, 4),
        }

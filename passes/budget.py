"""`--budget`: what a result may cost at most, parsed in one place; the passes that spend it say how it was kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import UsageError

__all__ = ["PRUNING_UNITS", "Budget", "parse_budget", "parse_budgets"]

# unit -> what a limit without a minus sign may be written in, and what each is worth
_LIMITS: Mapping[str, Mapping[str, float]] = {
    "macs": {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9},
    "parameters": {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9},
    "size": {"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    "latency": {},
    "drop": {"%": 0.01},
}
_SHORT = {"params": "parameters"}
PRUNING_UNITS = frozenset({"macs", "parameters", "latency"})  # what fewer bits do not change
_HINT = "write macs=-40%, latency=-30%, parameters=-60%, size=-50% or size=0.5MB, drop=1%"


@dataclass(frozen=True)
class Budget:
    """At most `limit`, or `share` less than the original; one of them is set.

    unit: macs, parameters, size (bytes of weights), latency (the target's cost model), or drop (share of decisions
    that may change). A drop has a limit only, a latency a share only.
    """

    unit: str
    share: float | None = None
    limit: float | None = None

    def allowed(self, before: float) -> float:
        """The most that is allowed of what was `before`."""
        return self.limit if self.limit is not None else before * (1 - (self.share or 0.0))

    def __str__(self) -> str:
        if self.share is not None:
            return f"{self.unit}=-{100 * self.share:g}%"
        limit = self.limit or 0.0
        return f"{self.unit}={100 * limit:g}%" if self.unit == "drop" else f"{self.unit}={limit:.0f}"


def parse_budget(text: str) -> Budget:
    """`macs=-40%` takes away a share, `size=0.5MB` and `drop=1%` set a limit; UsageError otherwise."""
    match = re.fullmatch(r"\s*(\w+)\s*=\s*(-?)(\d+(?:\.\d+)?|\.\d+)\s*([%A-Za-z]*)\s*", text)
    if match is None:
        raise _refused(text)
    unit, minus, number, suffix = _SHORT.get(match[1], match[1]), match[2], float(match[3]), match[4]
    if unit not in _LIMITS or number == 0:
        raise _refused(text)
    if minus:
        if unit == "drop" or suffix != "%" or number >= 100:
            raise _refused(text)
        return Budget(unit, share=number / 100)
    if suffix not in _LIMITS[unit]:
        raise _refused(text)
    return Budget(unit, limit=number * _LIMITS[unit][suffix])


def parse_budgets(texts: Iterable[str]) -> dict[str, Budget]:
    """Unit to budget, of texts that may each hold several separated by commas; a unit is named once."""
    found: dict[str, Budget] = {}
    for part in (p for text in texts for p in text.split(",")):
        budget = parse_budget(part)
        if budget.unit in found:
            raise UsageError(f"{budget.unit} has two budgets", where="--budget", hint="give the smaller one alone")
        found[budget.unit] = budget
    return found


def _refused(text: str) -> UsageError:
    return UsageError(f"{text!r} is not a budget", where="--budget", hint=_HINT)

"""`Tuning`: what a search found: configs for the compiler, and an account of every workload for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .database import Database
from .keys import describe, shown
from .tasks import Task

__all__ = ["Choice", "Tuning"]


@dataclass(frozen=True)
class Choice:
    """What was found for a workload: `value` and `default_value` are costs of a call in the back end's unit.

    source: `measured` now, `database`, `stopped` before its search was complete, or `default`, never measured.
    """

    workload: str
    calls: int
    config: dict[str, Any]
    default: dict[str, Any]
    value: float | None
    default_value: float | None
    measured: int
    source: str
    cost: str
    unit: str


@dataclass
class Tuning:
    """The result: configs for `compile_model`, what was found for each workload, and what a user should know."""

    configs: dict[Any, Any] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    trials: int = 0
    seconds: float = 0.0
    stopped: str = ""

    def total(self) -> tuple[float, float]:
        """Cost of all measured kernels in a run of the model: under the chosen configs, and under the defaults."""
        known = [c for c in self.choices if c.value is not None and c.default_value is not None]
        return sum(c.calls * (c.value or 0.0) for c in known), sum(c.calls * (c.default_value or 0.0) for c in known)

    def add(self, task: Task, measured: int, source: str, cost: tuple[str, str], database: Database) -> None:
        """Put down what a workload gets; where nothing is known of it, which record is nearest."""
        if source == "default" and (near := database.nearest(task.key)) is not None:
            elsewhere = "" if near.target == task.key.target else f" on {near.target}"
            self.notes.append(
                f"no record of {describe(task.key.workload)}; the nearest is {describe(near.workload)}{elsewhere}"
            )
        if (reason := task.reasons.get(task.default)) is not None:
            self.notes.append(f"{describe(task.key.workload)} could not be measured: {reason}")
        if task.chosen != task.default:
            self.configs[task.workload] = task.chosen
        texts = (describe(task.key.workload), task.calls, shown(task.chosen), shown(task.default))
        self.choices.append(Choice(*texts, task.value, task.default_value, measured, source, *cost))

"""`Task`: one workload of a program: the kernels that have it, its space, and what is known of its configs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ....targets.target import Target
from ..operators.workload import choose, space
from ..program import Program
from .candidates import Candidate, Subject, subject
from .cost import Failed, Outcome
from .database import Record
from .keys import Key, key_of, plain
from .search import Listed, Space
from .traces import Traces

__all__ = ["Task", "tasks_of"]


@dataclass
class Task:
    """A workload to tune.

    subjects: its kernels, which differ in their epilogues only, with how to make each under a config.
    costs: config -> cost of a call, the mean over the kernels weighted by calls; infinite for one that is no good.
    """

    workload: Any
    key: Key
    default: Any
    space: Space
    subjects: list[tuple[Subject, Any]]
    costs: dict[Any, float] = field(default_factory=dict)
    digests: tuple[str, ...] = ()
    reasons: dict[Any, str] = field(default_factory=dict)
    chosen: Any = None
    value: float | None = None
    default_value: float | None = None

    def __post_init__(self) -> None:
        self.chosen = self.default

    @property
    def calls(self) -> int:
        """How often a run of the model calls kernels of this workload."""
        return sum(found.calls for found, _ in self.subjects)

    @property
    def share(self) -> float:
        """What the workload costs in a run of the model under its default config."""
        cost = self.costs.get(self.default, 0.0)
        return self.calls * cost if math.isfinite(cost) else 0.0

    @property
    def best(self) -> Any:
        """The cheapest config known, the default while there is none."""
        good = [config for config in self.costs if math.isfinite(self.costs[config])]
        return min(good, key=lambda config: self.costs[config], default=self.default)

    def candidates(self, config: Any) -> list[Candidate]:
        """Every kernel of the workload under a config."""
        return [Candidate(found, scheduled(config)) for found, scheduled in self.subjects]

    def note(self, config: Any, outcomes: Sequence[Outcome]) -> None:
        """Keep what a config cost; results that differ from the default's by a bit count as a failure."""
        reason = next((o.reason for o in outcomes if isinstance(o, Failed)), "")
        digests = tuple("" if isinstance(o, Failed) else o.digest for o in outcomes)
        if not reason and config == self.default:
            self.digests = digests
        elif not reason and self.digests and digests != self.digests:
            reason = "its results differ from those of the default config"
        if reason:
            self.costs[config], self.reasons[config] = math.inf, reason
            return
        weights = [found.calls for found, _ in self.subjects]
        values = [0.0 if isinstance(o, Failed) else o.value for o in outcomes]
        self.costs[config] = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

    def settle(self, config: Any, value: float | None, default_value: float | None) -> None:
        """Choose a config, with what it and the default cost in one and the same run."""
        self.chosen, self.value, self.default_value = config, value, default_value

    def settle_early(self, margin: float) -> None:
        """Choose among what was measured before the search ended: the best where it is clearly below the default."""
        if math.isfinite(self.costs.get(self.default, math.inf)):
            best = self.best if self.costs[self.best] < margin * self.costs[self.default] else self.default
            self.settle(best, self.costs[best], self.costs[self.default])

    def record(self, config: Any, cost: str, unit: str) -> Record:
        """A measured config, as a line for the database."""
        value = self.costs[config]
        why = self.reasons.get(config, "")
        return Record(self.key, plain(config), cost, unit, value if math.isfinite(value) else None, why)

    def winner(self, cost: str, unit: str) -> Record:
        """The chosen config, as a line for the database."""
        return Record(
            self.key, plain(self.chosen), cost, unit, self.value, chosen=True, default_value=self.default_value
        )


def tasks_of(program: Program, target: Target) -> list[Task]:
    """A task for each workload whose template has more than one config, and for each kernel without a template."""
    tasks: dict[Any, Task] = {}
    for kernel, choice in program.choices.items():
        workload = choice.workload
        configs = space(workload)
        if len(configs) > 1:
            task = tasks.setdefault(
                workload, Task(workload, key_of(workload, target), choose(workload), Listed(configs), [])
            )
            task.subjects.append((subject(program, kernel), choice.scheduled))
    for kernel, choice in program.nests.items():
        workload, traces = choice.workload, Traces(choice.function, program.kernels[kernel], target)
        found = [(subject(program, kernel), choice.scheduled)]
        tasks.setdefault(workload, Task(workload, key_of(workload, target), choose(workload), traces, found))
    return list(tasks.values())

"""`tune`: measure configs of a program's kernels, most expensive workloads first, and choose where one is cheaper."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....errors import PlanishError
from ....targets.target import Target
from ..program import Program
from .cost import Cost
from .database import Database, Record
from .keys import describe
from .recall import configured, damage
from .search import Listed
from .tasks import Task, tasks_of
from .tuning import Tuning

__all__ = ["Budget", "Show", "tune"]

_FINALISTS = 3
_SEARCHING = 0.8  # of the time is for the search, the rest for finals
_HOPELESS = 1.1  # nobody wins a final from so far behind the default
_NEGLIGIBLE = 0.01  # of a run of the model: kernels without a template below are not searched
_MARGIN = 0.98  # a config has to be this much cheaper than the default, or the difference may be noise


@dataclass(frozen=True)
class Budget:
    """When to stop: after so many measured configs, after so many seconds; None for no such limit."""

    trials: int | None = None
    seconds: float | None = None


Show = Callable[[str, float], object]


def tune(
    program: Program,
    target: Target,
    cost: Cost,
    database: Database,
    budget: Budget,
    *,
    seed: int = 0,
    show: Show | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Tuning:
    """Search the spaces of a program's workloads by measuring, and append what is measured to the database.

    show: gets a line and the share that is done. stop: asked between batches; True ends the search with what there is.
    """
    run = _Run(program, target, cost, database, budget, np.random.default_rng(seed), show or (lambda *_: None), stop)
    return run.result()


class _Run:
    """State of one tuning run."""

    def __init__(
        self,
        program: Program,
        target: Target,
        cost: Cost,
        database: Database,
        budget: Budget,
        rng: np.random.Generator,
        show: Show,
        stop: Callable[[], bool],
    ) -> None:
        self.cost, self.database, self.budget, self.rng, self.show, self.stop = cost, database, budget, rng, show, stop
        self.tasks = tasks_of(program, target)
        self.tuning = Tuning()
        self.started = time.monotonic()
        self.done: dict[Any, str] = {}  # workload -> where its config comes from
        self.fresh: dict[Any, int] = {task.workload: 0 for task in self.tasks}

    def result(self) -> Tuning:
        try:
            self._recall()
            self._defaults()
            self._search()
            self._finals()
        except PlanishError as error:  # a tracker that died, a disk that is full: what was measured still counts
            self.tuning.stopped = str(error.what)
            self.tuning.notes.append(f"tuning ended early: {error.what}; {error.hint}")
        for task in self.tasks:
            source = self.done.get(task.workload, "stopped" if self.fresh[task.workload] else "default")
            if source == "stopped":
                task.settle_early(_MARGIN)
            self.tuning.add(task, self.fresh[task.workload], source, (self.cost.name, self.cost.unit), self.database)
        self._account()
        self.tuning.seconds = time.monotonic() - self.started
        return self.tuning

    def _account(self) -> None:
        """Say of kernels without a template how many got other loops, and why the others did not."""
        nests = [t for t in self.tasks if not isinstance(t.space, Listed) and t.workload in self.done]
        small = [t for t in nests if self.done[t.workload] == "negligible"]
        kept = [t for t in nests if t not in small and t.chosen == t.default]
        if nests:
            self.tuning.notes.append(
                f"of {len(nests)} kernels without a template {len(nests) - len(small) - len(kept)} get loops of the "
                f"search; {len(kept)} keep their own, nothing was 2 % faster; {len(small)} take less than 1 % of the "
                "time and were not searched"
            )

    def _recall(self) -> None:
        """What the database knows: winners are taken, configs that were measured need not be again."""
        self.tuning.notes += damage(self.database)
        for task in self.tasks:
            winner = self.database.chosen(task.key, self.cost.name)
            if winner is not None and (config := configured(task, winner, self.tuning)) is not None:
                task.settle(config, winner.value, winner.default_value)
                self.done[task.workload] = "database"
                continue
            for record in self.database.measured(task.key, self.cost.name):
                if (config := configured(task, record, self.tuning)) is not None:
                    task.costs[config] = math.inf if record.value is None else record.value

    def _pending(self) -> list[Task]:
        """Tasks without a final choice, the most expensive first."""
        return sorted((t for t in self.tasks if t.workload not in self.done), key=lambda t: -t.share)

    def _over(self) -> bool:
        """Whether the budget is spent or the user wants to stop; says so once."""
        if not self.tuning.stopped:
            spent = time.monotonic() - self.started
            if self.stop():
                self.tuning.stopped = "interrupted"
            elif self.budget.trials is not None and self.tuning.trials >= self.budget.trials:
                self.tuning.stopped = f"{self.budget.trials} trials are done"
            elif self.budget.seconds is not None and spent >= _SEARCHING * self.budget.seconds:
                self.tuning.stopped = f"{self.budget.seconds:.0f} s are over"
        return bool(self.tuning.stopped)

    def _defaults(self) -> None:
        """Measure every default config: it orders the tasks, and its bits are what others are compared with."""
        waiting = [task for task in self._pending() if not task.digests]
        while waiting and not self._over():
            room = self._room(max(1, self.cost.batch // 2))
            self._measure([(task, task.default) for task in waiting[:room]])
            waiting = waiting[room:]

    def _search(self) -> None:
        """Rounds in which every unfinished task gets a batch, so that one large space does not take all the time."""
        unfinished = [task for task in self._pending() if task.digests and not self._negligible(task)]
        while unfinished:
            for task in list(unfinished):
                if self._over():
                    return
                room = self._room(self.cost.batch)
                configs = task.space.proposals(task.costs, room, self.rng, self._seeds(task))
                if not configs:
                    unfinished.remove(task)
                    continue
                self._measure([(task, config) for config in configs])

    def _room(self, batch: int) -> int:
        """How many configs the next batch may have."""
        return batch if self.budget.trials is None else min(batch, self.budget.trials - self.tuning.trials)

    def _negligible(self, task: Task) -> bool:
        """A kernel without a template whose whole time is not worth a search."""
        return not isinstance(task.space, Listed) and task.share < _NEGLIGIBLE * sum(t.share for t in self.tasks)

    def _seeds(self, task: Task) -> list[Any]:
        """The winner of the most similar workload that has one, where this one's space has it too."""
        near = self.database.nearest(task.key) if isinstance(task.space, Listed) else None
        winner = None if near is None else self.database.chosen(near)
        try:
            return [] if winner is None else [task.space.config(winner.config)]
        except ValueError:
            return []

    def _measure(self, pairs: Sequence[tuple[Task, Any]]) -> None:
        """One batch: measured, noted, on the disk."""
        candidates = [task.candidates(config) for task, config in pairs]
        outcomes = self.cost.measure([c for group in candidates for c in group])
        records: list[Record] = []
        for (task, config), group in zip(pairs, candidates, strict=True):
            task.note(config, outcomes[: len(group)])
            outcomes = outcomes[len(group) :]
            records.append(task.record(config, self.cost.name, self.cost.unit))
            self.fresh[task.workload] += 1
        self.tuning.trials += len(pairs)
        self.database.append(records)
        self._report(pairs[-1][0])

    def _report(self, task: Task) -> None:
        best, default = task.costs.get(task.best), task.costs.get(task.default)
        gain = "" if not best or not default else f", best {best / default:.2f} of the default"
        left = [t for t in self.tasks if t.workload not in self.done]
        known, size = sum(len(t.costs) for t in left), sum(t.space.size for t in left)
        self.show(f"tuning: {self.tuning.trials} configs, {describe(task.key.workload)}{gain}", known / max(size, 1))

    def _finals(self) -> None:
        """Measure the best few of each task again beside the default, all in one run, and keep who still wins.

        An interrupted run leaves that out; a search that was cut short by its budget leaves no winner in the database.
        """
        if self.tuning.stopped == "interrupted":
            return
        for task in self._pending():
            if not task.digests:
                continue
            if self._negligible(task):
                task.settle(task.default, task.costs[task.default], task.costs[task.default])
                self.done[task.workload] = "negligible"
                continue
            if self.cost.exact:
                task.settle(task.best, task.costs[task.best], task.costs[task.default])
            else:
                self._final(task)
            if task.space.complete(task.costs) or not self.tuning.stopped:
                self.database.append([task.winner(self.cost.name, self.cost.unit)])
            self.done[task.workload] = "measured"

    def _final(self, task: Task) -> None:
        order = sorted(task.costs, key=lambda config: task.costs[config])
        finalists = [c for c in order if math.isfinite(task.costs[c]) and c != task.default][:_FINALISTS]
        if not finalists or task.costs[finalists[0]] > _HOPELESS * task.costs[task.default]:
            task.settle(task.default, task.costs[task.default], task.costs[task.default])
            return
        final = Task(task.workload, task.key, task.default, task.space, task.subjects)
        groups = [task.candidates(config) for config in (task.default, *finalists)]
        outcomes = self.cost.measure([c for group in groups for c in group], careful=True)
        for config, group in zip((task.default, *finalists), groups, strict=True):
            final.note(config, outcomes[: len(group)])
            outcomes = outcomes[len(group) :]
        best = final.best if final.costs[final.best] < _MARGIN * final.costs[task.default] else task.default
        task.settle(best, final.costs[best], final.costs[task.default])

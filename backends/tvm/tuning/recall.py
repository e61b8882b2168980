"""`recall`: the configs that a database has for a program's kernels, without measuring anything."""

from __future__ import annotations

from ....targets.target import Target
from ..program import Program
from .database import Database
from .keys import key_of
from .tasks import tasks_of
from .tuning import Tuning

__all__ = ["damage", "recall"]


def recall(program: Program, target: Target, database: Database) -> Tuning:
    """The latest winner of each workload, by whichever cost back end chose it; a miss names the nearest key."""
    tuning = Tuning(notes=damage(database))
    for task in tasks_of(program, lambda workload: key_of(workload, target)):
        winner = database.chosen(task.key)
        config = None if winner is None else task.config(winner.config)
        if winner is None or config is None:
            tuning.add(task, 0, "default", ("", ""), database)
            continue
        task.settle(config, winner.value, winner.default_value)
        tuning.add(task, 0, "database", (winner.cost, winner.unit), database)
    return tuning


def damage(database: Database) -> list[str]:
    """A note about lines that cannot be read, where there are some."""
    if not database.damaged:
        return []
    lines = f"{len(database.damaged)} lines of {database.path}, the first of them line {database.damaged[0]}"
    return [f"the tuning database is damaged: {lines}, cannot be read; they are left alone and not used"]

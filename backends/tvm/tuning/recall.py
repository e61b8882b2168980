"""`recall`: the configs that a database has for a program's kernels, without measuring anything."""

from __future__ import annotations

from typing import Any

from ....targets.target import Target
from ..program import Program
from .database import Database, Record
from .keys import describe
from .tasks import Task, tasks_of
from .tuning import Tuning

__all__ = ["configured", "damage", "recall"]


def recall(program: Program, target: Target, database: Database) -> Tuning:
    """The latest winner of each workload, by whichever cost back end chose it; a miss names the nearest key."""
    tuning = Tuning(notes=damage(database))
    for task in tasks_of(program, target):
        winner = database.chosen(task.key)
        config = None if winner is None else configured(task, winner, tuning)
        if winner is None or config is None:
            tuning.add(task, 0, "default", ("", ""), database)
            continue
        task.settle(config, winner.value, winner.default_value)
        tuning.add(task, 0, "database", (winner.cost, winner.unit), database)
    return tuning


def configured(task: Task, record: Record, tuning: Tuning) -> Any | None:
    """The config that a record names; None, and a note, where it cannot be used."""
    try:
        return task.space.config(record.config)
    except ValueError as error:
        tuning.notes.append(f"a record of {describe(task.key.workload)} is skipped: {error}")
        return None


def damage(database: Database) -> list[str]:
    """A note about lines that cannot be read, where there are some."""
    if not database.damaged:
        return []
    lines = f"{len(database.damaged)} lines of {database.path}, the first of them line {database.damaged[0]}"
    return [f"the tuning database is damaged: {lines}, cannot be read; they are left alone and not used"]

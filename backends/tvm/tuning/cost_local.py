"""Cost by time on this machine, in a process of its own so that a kernel that crashes stops nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from ....targets.target import Target
from . import harness
from .candidates import Candidate
from .cost import Outcome, one_by_one, parse, run

__all__ = ["LocalTime"]

# rounds, and microseconds a kernel runs in each: the least of many short blocks meets few interruptions
_QUICK, _CAREFUL = (12, 400), (60, 1000)
_TIMEOUT = 120.0


class LocalTime:
    """Seconds of a call on this machine: the least over many rounds in which all candidates have their turn."""

    name: ClassVar[str] = "local time"
    unit: ClassVar[str] = "s"
    exact: ClassVar[bool] = False
    batch: ClassVar[int] = 16

    def __init__(self, target: Target) -> None:
        self.target = target

    def measure(self, candidates: Sequence[Candidate], *, careful: bool = False) -> list[Outcome]:
        rounds, block = _CAREFUL if careful else _QUICK

        def attempt(some: Sequence[Candidate], directory: Path) -> list[Outcome]:
            harness.build(some, self.target, directory, form="program")
            command = [str(directory / "measure"), "data", "time", str(rounds), str(block)]
            return list(parse(run(command, directory, _TIMEOUT)))

        return one_by_one(candidates, attempt)

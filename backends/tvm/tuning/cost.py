"""`Cost`: what a kernel costs on a target, by whichever back end can tell; every figure carries the back end's name."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ....errors import PlanishError
from .candidates import Candidate

__all__ = ["Cost", "Failed", "Measured", "Outcome", "Unavailable", "one_by_one", "parse", "run"]


@dataclass(frozen=True)
class Measured:
    """The cost of one call in the back end's unit, and a hash of the results: equal hashes are equal bits."""

    value: float
    digest: str


@dataclass(frozen=True)
class Failed:
    """Why a candidate could not be measured."""

    reason: str


Outcome = Measured | Failed


class Unavailable(PlanishError):
    """The back end cannot measure any more, whatever the candidate."""

    exit_code = 2
    title = "tuning error"


class Cost(Protocol):
    """A cost back end.

    name: what stands beside its figures; unit: `s` or `cycles`; exact: measuring again gives the same figure.
    batch: how many candidates it likes to get at once.
    """

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def exact(self) -> bool: ...
    @property
    def batch(self) -> int: ...

    def measure(self, candidates: Sequence[Candidate], *, careful: bool = False) -> list[Outcome]:
        """The cost of each candidate, in order; `careful` spends more time where figures are noisy."""
        ...


def run(command: Sequence[str], directory: Path, seconds: float) -> str:
    """Standard output of a measuring program; PlanishError says how it ended."""
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=seconds, check=False, start_new_session=True
        )
    except subprocess.TimeoutExpired as error:
        raise PlanishError(
            f"measuring took more than {seconds:.0f} s", where=str(command[0]), hint="close other programs"
        ) from error
    if done.returncode:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise PlanishError(
            f"the measuring program ended with {how}: {done.stderr.strip()[-300:]}",
            where=str(command[0]),
            hint="the candidates are measured one by one to find the one at fault",
        )
    return done.stdout


def parse(text: str) -> list[Measured]:
    """The lines `hash seconds` that measure.c prints."""
    rows = [line.split() for line in text.splitlines()]
    return [Measured(float(seconds), digest) for digest, seconds in rows]


def one_by_one(
    candidates: Sequence[Candidate], attempt: Callable[[Sequence[Candidate], Path], list[Outcome]]
) -> list[Outcome]:
    """All candidates in one go in a directory of their own; where that fails, each alone, failures kept apart."""
    try:
        with tempfile.TemporaryDirectory(prefix="planish-tune-") as directory:
            return attempt(candidates, Path(directory))
    except Unavailable:
        raise
    except Exception as error:  # a compiler's or the program's own: whichever candidate did it must not stop the others
        if len(candidates) == 1:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return [Failed(f"{type(error).__name__}: {lines[0][:300]}")]
    half = len(candidates) // 2
    return one_by_one(candidates[:half], attempt) + one_by_one(candidates[half:], attempt)

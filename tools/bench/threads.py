"""One model on two threads beside itself on one, and what the machine's two cores allow at most."""

from __future__ import annotations

import threading
from collections.abc import Callable
from statistics import median

__all__ = ["Timed", "two_threads"]

Timed = Callable[[int], list[float]]  # runs so many times, returns the milliseconds of each


def two_threads(team: Timed, one: Timed, other: Timed, calls_ms: float, rounds: int) -> dict[str, float]:
    """Times of day over that of a call on one thread, all of them the least of a round: medians over the rounds.

    two_threads: a call on a team of two; two_threads_least: the least of all rounds on both sides; two_at_once: half of
    a call while another one runs beside it, which is what sharing everything at no cost would give.
    one, other: the same model twice; calls_ms: how long a contender runs in each round.
    """
    count = max(1, int(calls_ms / min(one(5))))
    rows = [(min(one(count)), min(team(count)), _beside(one, other, count) / 2) for _ in range(rounds)]
    return {
        "two_threads": round(median(shared / alone for alone, shared, _ in rows), 3),
        "two_threads_least": round(min(row[1] for row in rows) / min(row[0] for row in rows), 3),
        "two_at_once": round(median(half / alone for alone, _, half in rows), 3),
    }


def _beside(one: Timed, other: Timed, count: int) -> float:
    """The least milliseconds of the slower one of two calls that run at the same time."""
    found: list[float] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            found.extend(other(1))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        least = min(one(count))
    finally:
        stop.set()
        thread.join()
    return max(least, min(found))

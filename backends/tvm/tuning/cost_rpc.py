"""Cost by time on boards behind a TVM RPC tracker; several are used at once, and one that dies is done without."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ....errors import PlanishError, UsageError
from ....targets.target import Target
from . import harness
from .candidates import Candidate
from .cost import Failed, Measured, Outcome, Unavailable, one_by_one
from .tracker import Tracker

__all__ = ["RemoteTime"]

_QUICK, _CAREFUL = (12, 400), (60, 1000)  # rounds, and microseconds a kernel runs in each
_START_S = 60  # for a client to load TVM
_SESSION_S = 60  # for an upload and a measurement; a board that takes longer counts as dead
_WAIT_S = 30.0  # for a board to come free
_ATTEMPTS = 3  # boards that a piece of work is given to before it is given up
_PIECE = 4  # candidates that go to a board together


@dataclass
class _Work:
    """Some candidates, built, on their way to a board: their places in the batch, and what came back."""

    places: range
    directory: Path
    attempts: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    why: str = ""


class _Client:
    """A process that talks to boards, so that one that hangs can be given up; started when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, work: _Work, board: tuple[str, int, str], effort: tuple[int, int]) -> list[Outcome]:
        """Have a board measure some work; PlanishError when it is lost."""
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = _started()
        request = {
            "board": board,
            "session_s": _SESSION_S,
            "library": str(work.directory / "measure.so"),
            "data": str(work.directory / "data"),
            "count": len(work.places),
            "rounds": effort[0],
            "block_us": effort[1],
        }
        assert process.stdin is not None and process.stdout is not None
        limit = threading.Timer(_SESSION_S + _START_S, process.kill)
        limit.start()
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
        finally:
            limit.cancel()
        answer: dict[str, Any] = json.loads(line) if line else {"lost": "its connection hung or broke"}
        if "lost" in answer:
            raise PlanishError(f"the board {board[0]}:{board[1]} was lost: {answer['lost']}", where="--rpc")
        return [Measured(seconds, digest) for digest, seconds in answer["rows"]]


def _started() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"{__package__}.board"]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C is for the search, which ends after its batch
    )


class RemoteTime:
    """Seconds of a call on a board: the least over many rounds in which candidates sent together have their turn."""

    unit: ClassVar[str] = "s"
    exact: ClassVar[bool] = False
    batch: ClassVar[int] = 16

    def __init__(self, target: Target, tracker: str, key: str) -> None:
        self.target, self.key, self.tracker = target, key, Tracker.parse(tracker)
        self.name = f"RPC time, {key}"
        boards = self.tracker.boards()
        if not boards.get(key):
            raise UsageError(
                f"the RPC tracker {tracker} has no board called {key!r}; it has {', '.join(sorted(boards)) or 'none'}",
                where="--key",
                hint=f"start one: python -m tvm.exec.rpc_server --tracker {tracker} --key {key}",
            )
        self._clients = [_Client() for _ in range(boards[key])]

    def measure(self, candidates: Sequence[Candidate], *, careful: bool = False) -> list[Outcome]:
        """Careful: all on one board, so that they are compared with each other and not boards."""
        size = len(candidates) if careful else _PIECE

        def attempt(some: Sequence[Candidate], directory: Path) -> list[Outcome]:
            work = []
            for start in range(0, len(some), size):
                piece = _Work(range(start, min(start + size, len(some))), directory / str(start))
                piece.directory.mkdir()
                harness.build([some[i] for i in piece.places], self.target, piece.directory, form="library")
                work.append(piece)
            self._send(work, _CAREFUL if careful else _QUICK)
            return [outcome for piece in work for outcome in piece.outcomes]

        return one_by_one(candidates, attempt)

    def _send(self, work: Sequence[_Work], effort: tuple[int, int]) -> None:
        """Give every piece to a board, again where one is lost; PlanishError when no board answers any more."""
        waiting: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        for piece in work:
            waiting.put(piece)
        threads = [threading.Thread(target=self._drain, args=(c, waiting, effort)) for c in self._clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lost = [piece for piece in work if not piece.outcomes]
        if len(lost) == len(work):
            raise Unavailable(
                f"no board {self.key!r} answers any more: {lost[0].why}",
                where=f"--rpc {self.tracker}",
                hint="check the boards and the tracker; what was measured is kept, the next run goes on from there",
            )
        for piece in lost:  # others came back, so it is not the boards
            piece.outcomes = [Failed(f"{_ATTEMPTS} boards were lost with it: {piece.why}") for _ in piece.places]

    def _drain(self, client: _Client, waiting: queue.SimpleQueue[_Work], effort: tuple[int, int]) -> None:
        """Do pieces of work until none is left; one whose board is lost goes back for another."""
        while True:
            try:
                piece = waiting.get_nowait()
            except queue.Empty:
                return
            piece.attempts += 1
            try:
                board = self.tracker.request(self.key, _WAIT_S)
                piece.outcomes = client.ask(piece, board, effort)
            except PlanishError as error:
                piece.why = error.what
                if piece.attempts < _ATTEMPTS:
                    waiting.put(piece)

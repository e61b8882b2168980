"""Independent jobs on the cores of this machine, or on a Ray cluster; the longest first, finished ones kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from ...errors import PlanishError, UsageError
from .block_training import Job, Trained

__all__ = ["capacity", "run_jobs"]

_ATTEMPTS = 3
_WORKER_MEMORY = 1 << 30  # PyTorch, a job's samples, and what their gradients take

Progress = Callable[[int, int], object]


def run_jobs(
    jobs: Sequence[Job], directory: Path, workers: int, progress: Progress, cluster: str | None = None
) -> list[Trained]:
    """The result of every job, in order; the same bits whatever the number of workers.

    directory: holds jobs and results by their contents, so that a run that was stopped trains only what is missing.
    A worker that is killed has its job run again; PlanishError when a job fails three times.
    """
    directory.mkdir(parents=True, exist_ok=True)
    contents = [job.to_bytes() for job in jobs]
    places = [directory / hashlib.blake2b(content, digest_size=12).hexdigest() for content in contents]
    missing = [i for i, place in enumerate(places) if not place.with_suffix(".result").exists()]
    missing.sort(key=lambda i: -jobs[i].work)
    done = len(jobs) - len(missing)
    progress(done, len(jobs))
    if cluster is not None:
        for i, content in _on_cluster(cluster, {i: contents[i] for i in missing}):
            _write(places[i].with_suffix(".result"), content)
            done += 1
            progress(done, len(jobs))
    else:
        for i in missing:
            _write(places[i].with_suffix(".job"), contents[i])
        for _ in _in_processes([(jobs[i].name, places[i]) for i in missing], workers):
            done += 1
            progress(done, len(jobs))
    return [Trained.from_bytes(place.with_suffix(".result").read_bytes()) for place in places]


def capacity() -> int:
    """How many workers this process may run at once: as many as it has processors and memory for."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    free = _free_memory()
    return processors if free is None else max(min(processors, free // _WORKER_MEMORY), 1)


def _free_memory() -> int | None:
    """Bytes that may be taken without swapping; None where the system does not say."""
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(facts["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return None


def _in_processes(jobs: Sequence[tuple[str, Path]], workers: int) -> Iterator[str]:
    """Names of jobs as they end, at most `workers` at once, each process with one thread and one job after another."""
    waiting: queue.SimpleQueue[tuple[str, Path]] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    ended: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()
    crew = [_Worker(waiting, ended) for _ in range(min(workers, len(jobs)))]
    try:
        for worker in crew:
            worker.start()
        for _ in jobs:
            result = ended.get()
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        for worker in crew:
            worker.stop()
        for worker in crew:
            worker.join()


class _Worker(threading.Thread):
    """Gives jobs to a process of its own, which loads PyTorch once; a process that dies is replaced."""

    def __init__(self, waiting: queue.SimpleQueue[tuple[str, Path]], ended: queue.SimpleQueue[str | Exception]) -> None:
        super().__init__(daemon=True)
        self._waiting, self._ended = waiting, ended
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> None:
        with tempfile.TemporaryFile("w+", errors="replace") as complaints:
            try:
                self._work(complaints)
            except Exception as error:  # whoever waits for the jobs has to hear of it
                self._ended.put(error)
            finally:
                self.stop()
                if self._process is not None:
                    with contextlib.suppress(BrokenPipeError), self._process:
                        pass  # it is waited for, and its pipes are closed

    def stop(self) -> None:
        """End the process, and with it the thread that waits for its answer."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _work(self, complaints: IO[str]) -> None:
        while not self._stopped:
            try:
                name, place = self._waiting.get_nowait()
            except queue.Empty:
                return
            if not any(self._done(place, complaints) for _ in range(_ATTEMPTS)):
                complaints.seek(0)
                raise _failed(name, self._process.returncode if self._process else 0, complaints.read())
            place.with_suffix(".job").unlink(missing_ok=True)
            self._ended.put(name)

    def _done(self, place: Path, complaints: IO[str]) -> bool:
        """Whether the process has answered to the job; without an answer it is dead."""
        with self._lock:
            if self._stopped:
                return False
            if self._process is None or self._process.poll() is not None:
                self._process = _started(complaints)
            process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps([str(place.with_suffix(s)) for s in (".job", ".result")]) + "\n")
            process.stdin.flush()
            answered = bool(process.stdout.readline())
        except BrokenPipeError:
            answered = False
        if not answered:
            process.wait()
        return answered


def _started(complaints: IO[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "planish.passes.replace.worker"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
    )


def _on_cluster(address: str, jobs: dict[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbers of jobs and their results as they end, on the workers of a Ray cluster (`local` starts one here)."""
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "a cluster needs Ray, which is not installed",
            where="--cluster",
            hint="install the extra: pip install 'planish[cluster]'",
        ) from error

    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=None if address == "local" else address, include_dashboard=False, log_to_driver=False)
        except Exception as error:
            raise UsageError(
                f"the cluster does not answer: {str(error)[:300]}", where=f"--cluster {address}", hint="start it first"
            ) from error
    try:
        remote = ray.remote(num_cpus=1, max_retries=_ATTEMPTS - 1)(_train_bytes)
        waiting = {remote.remote(content): i for i, content in jobs.items()}
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1)
            for reference in ready:
                yield waiting.pop(reference), ray.get(reference)
    finally:
        if started:
            ray.shutdown()


def _train_bytes(content: bytes) -> bytes:
    from .block_training import train

    return train(Job.from_bytes(content)).to_bytes()


def _write(path: Path, content: bytes) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, path)


def _failed(name: str, code: int, complaint: str) -> PlanishError:
    last = complaint.strip().splitlines()[-1] if complaint.strip() else f"exit code {code}"
    return PlanishError(
        f"a training job failed {_ATTEMPTS} times: {last[:300]}",
        where=f"block {name}",
        hint="finished blocks are kept in --checkpoints; leave the block out with blocks=, or train=0",
    )

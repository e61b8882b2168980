"""Independent jobs on the cores of this machine, or on a Ray cluster; the longest first, finished ones kept."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...errors import PlanishError, UsageError
from .block_training import Job, Trained

__all__ = ["cores", "run_jobs"]

_ATTEMPTS = 3
_POLL = 0.05  # seconds between looks at the workers

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


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(jobs: Sequence[tuple[str, Path]], workers: int) -> Iterator[str]:
    """Names of jobs as they end, at most `workers` at once, each in a process with one thread."""
    waiting = [(name, place, 1) for name, place in jobs]
    running: list[tuple[subprocess.Popen[bytes], str, Path, int]] = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                name, place, attempt = waiting.pop(0)
                command = [sys.executable, "-m", "planish.passes.replace.worker"]
                command += [str(place.with_suffix(".job")), str(place.with_suffix(".result"))]
                process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
                running.append((process, name, place, attempt))
            time.sleep(_POLL)
            for entry in [e for e in running if e[0].poll() is not None]:
                running.remove(entry)
                process, name, place, attempt = entry
                complaint = process.stderr.read().decode(errors="replace") if process.stderr else ""
                if process.returncode == 0:
                    place.with_suffix(".job").unlink(missing_ok=True)
                    yield name
                elif attempt < _ATTEMPTS:
                    waiting.insert(0, (name, place, attempt + 1))
                else:
                    raise _failed(name, process.returncode, complaint)
    finally:
        for process, *_ in running:
            process.terminate()
        for process, *_ in running:
            process.wait()


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

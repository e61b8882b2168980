"""Blockwise distillation: replacements trained against the original's activations, then on the student's inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.execute import Session
from ..context import Context, Feeds
from .block_training import Job, Trained
from .choose import Choice, same
from .factory import Candidate
from .pool import capacity, run_jobs
from .rewrite import alone, insert

if TYPE_CHECKING:
    from ..synthesize.impressions import Impressions

__all__ = ["correct", "train_all"]

Array = npt.NDArray[np.generic]

_BYTES = 64 << 20  # of a layer's inputs or outputs that a job is given


def train_all(
    model: ir.Model,
    choices: Sequence[Choice],
    feeds: Sequence[Feeds],
    impressions: Mapping[str, Impressions],
    steps: int,
    workers: int,
    context: Context,
) -> list[tuple[Choice, Trained | None]]:
    """Every replacement trained by itself on the original's inputs and outputs of its layer, in parallel.

    Teacher activations are computed once for each layer; one that decides is trained on its impressions, for the
    decisions. What saw fewer samples than it has inputs would learn them by heart: it stays as it was fitted, and is
    left out. Source: Blakeney et al., TPDS 2021.
    """
    count = workers or capacity()
    seconds = None
    if context.time_budget is not None:
        seconds = context.time_budget * min(count, len(choices)) / len(choices)
    jobs = {}
    for choice in choices:
        known = impressions.get(choice.site.layer.name)
        if known is not None:
            job = _job_on(choice, known.features, known.scores, steps, context.seed, seconds, decisions=True)
        elif feeds:
            job = _job(model, model, choice, feeds, steps, context.seed, seconds)
        else:
            continue
        if (rows := _rows(choice, job)) >= (inputs := choice.site.matrix.shape[1]):
            jobs[choice.site.node] = job
        else:
            context.record.note(
                f"{choice.site.node.name} is not trained: {rows} samples of {inputs} inputs are too few"
            )

    def progress(done: int, total: int) -> None:
        context.progress(f"training {total} blocks on {count} workers", done / max(total, 1))

    with ExitStack() as stack:
        directory = context.checkpoints and context.checkpoints / "blocks"
        place = directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        results = dict(zip(jobs, run_jobs(list(jobs.values()), place, count, progress, context.cluster), strict=True))
    found = [(choice, results.get(choice.site.node)) for choice in choices]
    return [(_with_weights(choice, trained) if trained else choice, trained) for choice, trained in found]


def correct(
    model: ir.Model, choices: Sequence[Choice], feeds: Sequence[Feeds], steps: int, context: Context
) -> list[Choice]:
    """The correction sweep: each replacement, in order, trained on what the ones before it give, toward the original.

    Independent training ignores that errors add up; this is where a block learns to undo those of its predecessors.
    """
    from .block_training import train

    student = model.clone()
    done = []
    for number, choice in enumerate(choices):
        context.progress("correction sweep", number / len(choices))
        job, corrected = _job(model, student, choice, feeds, steps, context.seed, None), choice
        if _rows(choice, job) >= choice.site.matrix.shape[1]:
            trained = train(job)
            corrected = _with_weights(choice, trained) if trained.after < trained.before else choice
        done.append(corrected)
        insert(student.graph, same(student, choice.site.layer), corrected.candidate.pieces)
    return done


def _job(
    teacher: ir.Model,
    student: ir.Model,
    choice: Choice,
    feeds: Sequence[Feeds],
    steps: int,
    seed: int,
    seconds: float | None,
) -> Job:
    layer = choice.site.layer
    source, result = str(layer.node.inputs[0].name), str(layer.output.name)  # type: ignore[union-attr]
    return _job_on(choice, _values(student, source, feeds), _values(teacher, result, feeds), steps, seed, seconds)


def _job_on(
    choice: Choice, x: Array, y: Array, steps: int, seed: int, seconds: float | None, decisions: bool = False
) -> Job:
    layer = choice.site.layer
    count = max(1, min(len(x), _BYTES // max(x[:1].nbytes, y[:1].nbytes, 1)))
    model = ir.to_proto(alone(layer, choice.candidate.pieces)).SerializeToString()
    return Job(str(layer.output.name), model, x[:count], y[:count], steps, seed, seconds, decisions)


def _rows(choice: Choice, job: Job) -> int:
    """How often the layer was seen at work: samples times positions."""
    return job.y.size // len(choice.site.matrix)


def _values(model: ir.Model, name: str, feeds: Sequence[Feeds]) -> Array:
    if name in feeds[0]:
        return np.concatenate([feed[name] for feed in feeds])
    session = Session(model, [name])
    return np.concatenate([session(feed)[name] for feed in feeds])


def _with_weights(choice: Choice, trained: Trained) -> Choice:
    """The choice with the weights that training found: they are named after pieces, in order."""
    left = _ordered(choice.candidate, trained.weights)
    pieces = []
    for piece in choice.candidate.pieces:
        weights = tuple(left.pop(0).reshape(w.shape) for w in piece.weights)
        pieces.append(replace(piece, weights=weights))
    candidate = replace(choice.candidate, pieces=tuple(pieces), error=trained.after)
    return Choice(choice.site, candidate)


def _ordered(candidate: Candidate, weights: Mapping[str, Array]) -> list[Array]:
    """As `alone` names them: y_0_weight, y_0_bias, y_1_weight, …"""
    kinds = ("weight", "bias")
    return [weights[f"y_{n}_{kinds[i]}"] for n, p in enumerate(candidate.pieces) for i in range(len(p.weights))]

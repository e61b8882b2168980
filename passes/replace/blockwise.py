"""Blockwise distillation: replacements trained against the original's activations, then on the student's inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.execute import Session
from ..context import Context, Feeds
from .block_training import Job, Trained
from .choose import Choice, same
from .factory import Candidate
from .pool import cores, run_jobs
from .rewrite import alone, insert

__all__ = ["correct", "train_all"]

Array = npt.NDArray[np.generic]

_BYTES = 64 << 20  # of a layer's inputs or outputs that a job is given


def train_all(
    model: ir.Model, choices: Sequence[Choice], feeds: Sequence[Feeds], steps: int, workers: int, context: Context
) -> list[tuple[Choice, Trained]]:
    """Every replacement trained by itself on the original's inputs and outputs of its layer, in parallel.

    Teacher activations are computed once for each layer. Source: Blakeney et al., TPDS 2021.
    """
    count = workers or cores()
    seconds = None
    if context.time_budget is not None:
        seconds = context.time_budget * min(count, len(choices)) / len(choices)
    jobs = [_job(model, model, choice, feeds, steps, context.seed, seconds) for choice in choices]

    def progress(done: int, total: int) -> None:
        context.progress(f"training {total} blocks on {count} workers", done / total)

    with ExitStack() as stack:
        directory = context.checkpoints and context.checkpoints / "blocks"
        place = directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        results = run_jobs(jobs, place, count, progress, context.cluster)
    return [(_with_weights(choice, trained), trained) for choice, trained in zip(choices, results, strict=True)]


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
        trained = train(_job(model, student, choice, feeds, steps, context.seed, None))
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
    x, y = _values(student, source, feeds), _values(teacher, result, feeds)
    count = max(1, min(len(x), _BYTES // max(x[:1].nbytes, y[:1].nbytes, 1)))
    model = ir.to_proto(alone(layer, choice.candidate.pieces)).SerializeToString()
    return Job(result, model, x[:count], y[:count], steps, seed, seconds)


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

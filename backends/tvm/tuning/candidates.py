"""`Candidate`: one PrimFunc on arguments that a program gives it; what a cost back end measures."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..program import Program

__all__ = ["Candidate", "Subject", "subject", "subjects_of"]

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Subject:
    """One kernel of a program, whatever its config: bytes of what it reads and of what it writes.

    calls: how often a run of the model calls it. contents: makes what it reads, the same numbers every time; a large
    model's would not fit in memory together.
    """

    name: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    calls: int
    contents: Callable[[], tuple[Array, ...]]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A scheduled PrimFunc that computes a subject."""

    subject: Subject
    function: Any


def subject(program: Program, kernel: str) -> Subject:
    """A kernel with its constants as they are and activations made up, the same ones every time."""
    first = next(call for call in program.calls if call.kernel == kernel)
    reads, writes = (tuple(program.tensors[name].bytes for name in names) for names in (first.reads, first.writes))

    def contents() -> tuple[Array, ...]:
        return tuple(_contents(program, name, i) for i, name in enumerate(first.reads))

    return Subject(kernel, reads, writes, program.runs(kernel), contents)


def subjects_of(candidates: Sequence[Candidate]) -> list[Subject]:
    """The subjects of some candidates, each once, in order."""
    return list({id(c.subject): c.subject for c in candidates}.values())


def _contents(program: Program, name: str, position: int) -> Array:
    storage = program.storage(name)
    if storage in program.constants:
        return program.constants[storage]
    tensor = program.tensors[name]
    dtype = np.dtype(tensor.dtype)
    rng = np.random.default_rng(zlib.crc32(repr((tensor.shape, tensor.dtype, position)).encode()))
    if dtype.kind == "f":
        return rng.normal(0.0, 1.0, tensor.shape).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 1:
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, tensor.shape, dtype, endpoint=True)
    return np.zeros(tensor.shape, dtype)  # indices and masks: zeros are valid everywhere

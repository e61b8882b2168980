"""What a pass may need and must not import: target, cost, executor, inputs, seed, progress and its record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .record import Record

if TYPE_CHECKING:
    from ..ir.layer_cost import LayerCost
    from ..targets.target import Target
    from .budget import Budget

__all__ = ["Array", "Context", "Executor", "Feeds"]

Array = npt.NDArray[np.generic]
Feeds = Mapping[str, Array]


class Executor(Protocol):
    """Runs a model: named inputs to the named values (graph outputs when `fetch` is None)."""

    def __call__(self, model: ir.Model, feeds: Feeds, fetch: Sequence[str] | None = None) -> dict[str, Array]: ...


def _execute(model: ir.Model, feeds: Feeds, fetch: Sequence[str] | None = None) -> dict[str, Array]:
    from ..ir.execute import execute  # ONNX Runtime is loaded only when something is executed

    return execute(model, feeds, fetch)


@dataclass
class Context:
    """The driver fills it; a pass that runs alone gets the defaults.

    data: real samples given by the user, each a mapping from input name to a batch; None when there are none.
    synthetic: samples made by a synthesize pass, in the same form; None until one has run.
    likeliest: where those follow several conventions of scaling an input, as many of the likeliest one alone: a range
    should hold for all of them, but weights fitted to all at once fit none; None where synthetic is that already.
    everything: opens the user's data from its start, however much there is: (named arrays, labels or None) in turn.
    original: the model before the first pass, never modified: what training passes take as their teacher.
    float_weights: what a quantize pass rounded, by the name of the initialiser that holds the integers now.
    budgets: what the user allows the result to cost, by unit; each is spent by the pass that can.
    unrounded: the model before the first pass that may change a result; what predictions compare with.
    time_budget: seconds that training may take in all, None for no bound; checkpoints: directory that training leaves
    its state in, so that a run that was stopped goes on where it was; cluster: address of a Ray cluster for its jobs.
    cost: estimated cycles of a node on the target, or None where no model is known.
    layer_cost: what a layer costs in int8 and in float32 by measuring, None where it cannot be or nothing measures.
    """

    record: Record = field(default_factory=Record)
    target: Target | None = None
    seed: int = 0
    data: Sequence[Feeds] | None = None
    synthetic: Sequence[Feeds] | None = None
    likeliest: Sequence[Feeds] | None = None
    everything: Callable[[], Iterator[tuple[Feeds, Array | None]]] | None = None
    original: ir.Model | None = None
    unrounded: ir.Model | None = None
    float_weights: dict[str, Array] = field(default_factory=dict)
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    time_budget: float | None = None
    checkpoints: Path | None = None
    cluster: str | None = None
    execute: Executor = _execute
    cost: Callable[[ir.Node], float] | None = None
    layer_cost: Callable[[ir.Node], LayerCost | None] | None = None
    progress: Callable[[str, float], None] = lambda _what, _share: None
    permit: Callable[[], bool] = lambda: True

    def begin(self, name: str, spec: str, exact: bool) -> Record:
        """Open a fresh record for the next pass and return it."""
        self.record = Record(name, spec, exact, permit=self.permit)
        return self.record

    def fitting(self) -> list[Feeds]:
        """The samples that weights are fitted to: the user's, else those of the likeliest convention."""
        return list(self.data or self.likeliest or self.synthetic or ())

    def rng(self) -> np.random.Generator:
        """A fresh generator from the seed, so that a pass's result does not depend on the passes before it."""
        return np.random.default_rng(self.seed)

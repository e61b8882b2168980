"""Run the model before and after each pass: exact passes must agree, lossy ones are measured and attributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ..errors import ModelError, VerificationError
from ..ir.execute import Session
from ..ir.feeds import working_feeds
from ..ir.fidelity import OutputFidelity, compare, worst_relative
from ..ir.graph import all_nodes, weight_bytes
from .base import Pass
from .context import Array, Context, Feeds

__all__ = ["EXACT_TOLERANCE", "Fidelity"]

EXACT_TOLERANCE = 1e-4  # relative to the largest value of an output
_TOO_LARGE = 256 << 20  # a model is serialised to be executed; beyond this many bytes of weights that is not done

_STEPS = {ir.DataType.FLOAT16: 2.0**-10, ir.DataType.BFLOAT16: 2.0**-7}
_SAMPLES = 32  # feeds a comparison uses at most

Outputs = list[dict[str, Array]]


@dataclass
class Fidelity:
    """Instrument: the outputs after a pass against those before it, and against the original.

    feeds: inputs to compare on. Without any, random ones that the model accepts serve until a synthesize pass has
    made better ones; `source` says which. The tolerance of exact passes is 1e-4, or, for an ill-conditioned model or
    one of 16-bit floats, eight times what a 1-ulp change of its inputs does to its outputs, in the coarsest type that
    it computes in. `final` compares the last model with the first.
    """

    seed: int = 0
    feeds: Sequence[Feeds] = ()
    source: str = field(default="random", init=False)
    final: list[OutputFidelity] = field(default_factory=list, init=False)
    unavailable: str = field(default="", init=False)
    tolerance: float = field(default=EXACT_TOLERANCE, init=False)
    _original: ir.Model | None = field(default=None, init=False, repr=False)
    _first: Outputs = field(default_factory=list, init=False, repr=False)
    _last: Outputs = field(default_factory=list, init=False, repr=False)

    def start(self, model: ir.Model) -> None:
        """Run the original; afterwards `unavailable` says why it could not be run, if so."""
        self._original = model.clone()
        size = weight_bytes(model)
        if size > _TOO_LARGE:
            self.unavailable = f"{size >> 20} MiB of weights are too many to execute the model after each pass"
            return
        try:
            session = Session(model)
            if self.feeds:
                self.source = "user's samples"
                self.feeds = list(self.feeds)[:_SAMPLES]
            else:
                self.feeds = working_feeds(model, session, self.seed)
            self._first = self._last = [session(feed) for feed in self.feeds]
        except ModelError as error:
            self.unavailable = error.what
            return
        nudged = [session(_nudge(feed, _coarsest(model))) for feed in self.feeds]
        self.tolerance = max(EXACT_TOLERANCE, 8 * worst_relative(compare(self._first, nudged)))
        self.final = compare(self._first, self._last)

    def before(self, pass_: Pass, model: ir.Model, context: Context) -> None:
        if self._original is None:
            self.start(model)
        if context.synthetic and self.source == "random" and not self.unavailable:
            self._adopt(context.synthetic, model)

    def after(self, pass_: Pass, model: ir.Model, context: Context) -> None:
        if self.unavailable or not context.record.changes:
            return
        outputs = self._run(model, pass_)
        step = compare(self._last, outputs)
        context.record.measures["fidelity"] = [f.to_json() for f in step]
        if pass_.exact and not worst_relative(step) <= self.tolerance:
            worst = max(step, key=lambda f: f.relative)
            raise VerificationError(
                f"an exact pass changed output {worst.output!r} by {worst.relative:.2g} relative "
                f"(tolerance {self.tolerance:.2g})",
                where=f"pass {pass_.spec()}",
                hint="find the rewrite with --bisect; leave the pass out with --passes until it is fixed",
            )
        self._last = outputs
        self.final = compare(self._first, outputs)

    def _run(self, model: ir.Model, pass_: Pass) -> Outputs:
        try:
            session = Session(model)
            return [session(feed) for feed in self.feeds]
        except Exception as error:  # of ours, or whatever the runtime raises while it runs
            what = error.what if isinstance(error, ModelError) else f"{type(error).__name__}: {str(error)[:400]}"
            raise VerificationError(
                f"the model ran before the pass and does not after it: {what}",
                where=f"pass {pass_.spec()}",
                hint="find the rewrite with --bisect; leave the pass out with --passes until it is fixed",
            ) from error

    def _adopt(self, synthetic: Sequence[Feeds], model: ir.Model) -> None:
        """Measure from here on with synthesised inputs: they look like what the model was trained on."""
        assert self._original is not None
        self.source, self.feeds = "synthesised", list(synthetic)[:_SAMPLES]
        original, current = Session(self._original), Session(model)
        self._first = [original(feed) for feed in self.feeds]
        self._last = [current(feed) for feed in self.feeds]
        self.final = compare(self._first, self._last)


def _coarsest(model: ir.Model) -> float:
    """The step from 1 to the next number in the coarsest 16-bit type that the model holds; 0 where it has none."""
    held = {v.dtype for graph in model.graphs() for v in graph.initializers.values()}
    held |= {v.dtype for node in all_nodes(model) for v in (*node.inputs, *node.outputs) if v is not None}
    return max((step for kind, step in _STEPS.items() if kind in held), default=0.0)


def _nudge(feed: Mapping[str, Array], step: float) -> dict[str, Array]:
    """Every real input moved to the next representable number, away from zero, or by a larger step."""
    nudged = dict(feed)
    for name, x in feed.items():
        if x.dtype in (np.float16, np.float32, np.float64):
            moved = np.nextafter(x, np.copysign(np.asarray(np.inf, x.dtype), x))
            nudged[name] = np.asarray(moved * (1 + step) if step else moved, x.dtype)
    return nudged

"""`widen-activations`: 16-bit activations for a model whose outputs 8 bits would spoil, where the target has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ...errors import ModelError
from ...ir import metadata
from ...ir.graph import weight_bytes
from ...ir.probe import LARGEST_OBSERVED
from ..base import Pass
from ..context import Context, Feeds
from .keep_float import DECISIONS, PICTURES, fidelity_goals
from .quantize import Quantize
from .sensitivity import Noise, decibels, few_samples

__all__ = ["WidenActivations"]

_SAMPLES = 2  # runs for each width


@dataclass(frozen=True)
class WidenActivations(Pass):
    """int8 activations  ⇒  int16 in the whole model, where outputs miss the goals of `keep-float` with 8 bits

    pictures, decisions: the SQNR in dB that 16 bits have to reach; at 35 dB the noise is 2 % of the signal. It is less
    than `keep-float` asks for, which then leaves nothing in float: that would run on the CPU beside an NPU. 16 bits
    take twice the memory and about twice the cycles of 8.
    """

    pictures: float = 35.0
    decisions: float = DECISIONS
    name: ClassVar[str] = "widen-activations"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        feeds = list(context.data or context.synthetic or ())
        if context.target is None or "int16-activations" not in context.target.features:
            context.record.skip("model", f"{context.target or 'no target'} has no kernels for 16-bit activations")
        elif not feeds or weight_bytes(model) > LARGEST_OBSERVED:
            context.record.skip("model", "no inputs to compare on, or too large to be run")
        else:
            self._choose(model, few_samples(model, feeds, _SAMPLES), context)

    def _choose(self, model: ir.Model, feeds: Sequence[Feeds], context: Context) -> None:
        wanted = fidelity_goals(model, PICTURES, DECISIONS)
        narrow = _predicted(model, Quantize(activations="int8"), feeds, context)
        if all(narrow.get(name, goal) >= goal for name, goal in wanted.items()):
            context.record.skip("model", f"8 bits meet the goals: {_listed(narrow)}")
            return
        wide = _predicted(model, Quantize(activations="int16"), feeds, context)
        context.record.measures["predicted_sqnr"] = {"int8": narrow, "int16": wide}
        least = fidelity_goals(model, self.pictures, self.decisions)
        if not all(wide.get(name, goal) >= goal for name, goal in least.items()):
            context.record.skip("model", f"16 bits are not enough either: {_listed(wide)}")
        elif context.record.change("model", f"int16 activations: {_listed(wide)}; with 8 bits {_listed(narrow)}"):
            metadata.put(model, metadata.ACTIVATIONS, "INT16")


def _predicted(model: ir.Model, how: Quantize, feeds: Sequence[Feeds], context: Context) -> dict[str, float]:
    """SQNR in dB of each output, on the feeds; nothing where the quantized model does not run."""
    trial = model.clone()
    how.run(trial, Context(target=context.target))
    try:
        return {name: round(decibels(p), 2) for name, p in Noise(trial, model, feeds).total().items()}
    except ModelError as error:
        context.record.note(f"{how.activations} could not be measured: {error.what}")
        return {}


def _listed(predicted: dict[str, float]) -> str:
    worst = sorted(predicted.items(), key=lambda item: item[1])[:3]
    return ", ".join(f"{decibel:.1f} dB at {name}" for name, decibel in worst) or "nothing is quantized"

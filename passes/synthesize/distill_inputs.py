"""`distill-inputs`: synthesised inputs moved until the network answers to them as to its training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...errors import ModelError
from ...ir.shapes import infer
from ..base import Pass
from ..context import Context
from ..recover.recover import require_torch
from .typicality import pre_activations, statistics_of

__all__ = ["DistillInputs"]


@dataclass(frozen=True)
class DistillInputs(Pass):
    """x ← x − ∇Σ ((μ̂ − μ)/σ)² + (σ̂/σ − 1)² over every value whose BatchNorm statistics are known, from synthesised x

    steps: of Adam, `rate` standard deviations of the inputs each; batch: samples whose moments are matched together.
    decisions: weight of the cross-entropy with decisions drawn at random, where the output is a score vector; the
    only evidence there is when BatchNorm was folded before the model came here.
    swing: shift the input of strided convolutions at random; generator: train a small generator of pictures and its
    latents in place of the pictures. Needs PyTorch. (Cai et al. 2020, ZeroQ; Jeon et al. 2023, GENIE)
    """

    steps: int = 100
    rate: float = 0.03
    batch: int = 32
    decisions: float = 0.1
    swing: bool = True
    generator: bool = False
    name: ClassVar[str] = "distill-inputs"
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2 or not self.rate > 0 or self.decisions < 0:
            raise ValueError("steps and rate must be above 0, batch at least 2, decisions at least 0")

    def run(self, model: ir.Model, context: Context) -> None:
        require_torch(self.name)
        if reason := _why_not(model, context):
            context.record.skip("inputs", reason)
            return
        copy = model.clone()
        infer(copy)
        known = statistics_of(pre_activations(copy))
        if not known and not (self.decisions and _classes(copy)):
            context.record.skip("inputs", "no BatchNorm statistics, and no scores to decide by")
            return
        evidence = f"{len(known)} BatchNorm statistics" if known else "decisions alone"
        name, samples = _samples(context)
        if not context.record.change(name, f"{len(samples)} samples distilled from {evidence}"):
            return
        import torch

        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(context.seed)
                made, before, after = self._distill(copy, known, samples, context)
        except (RuntimeError, ModelError) as error:
            context.record.changes.clear()
            context.record.skip("inputs", f"the model does not run in PyTorch: {str(error).splitlines()[0][:200]}")
            return
        context.record.measures["loss"] = [round(before, 4), round(after, 4)]
        size = len(next(iter((context.synthetic or ())[0].values())))
        context.likeliest = None
        context.synthetic = [{name: made[i : i + size]} for i in range(0, len(made) - size + 1, size)]

    def _distill(
        self, model: ir.Model, known: dict[str, Any], samples: Any, context: Context
    ) -> tuple[Any, float, float]:
        import torch

        from .distillation import Statistics, distill
        from .matching import Matching

        statistics = {
            n: Statistics(*(torch.as_tensor(np.asarray(a, np.float32)) for a in found)) for n, found in known.items()
        }
        matching = Matching(model, statistics, self.decisions if _classes(model) else 0.0, self.swing)
        parts, losses = [], []
        batches = _batches(torch.as_tensor(samples), self.batch)
        for number, start in enumerate(batches):

            def progress(share: float, number: int = number) -> None:
                context.progress("distilling inputs", (number + share) / len(batches))

            loss = matching.loss_of(len(start))
            made = distill(loss, start, self.steps, self.rate, self.generator and start.dim() == 4, progress)
            with torch.no_grad():
                losses.append([float(loss(start)), float(loss(made))])
            parts.append(made)
        before, after = np.mean(losses, axis=0)
        return torch.cat(parts).numpy(), float(before), float(after)


def _why_not(model: ir.Model, context: Context) -> str:
    if context.data:
        return "real samples were given"
    if not context.synthetic:
        return "no inputs to start from: put synthesize-inputs before it"
    if len(model.graph.inputs) != 1:
        return f"{len(model.graph.inputs)} inputs: only a single one is distilled"
    return ""


def _samples(context: Context) -> tuple[str, Any]:
    feeds = context.fitting()  # inputs of another convention would never be led to the right one
    name = next(iter(feeds[0]))
    return name, np.concatenate([np.asarray(feed[name], np.float32) for feed in feeds])


def _batches(samples: Any, size: int) -> Sequence[Any]:
    """Batches of at least `size` samples, for their moments to mean something; all in one when there are fewer."""
    count = max(len(samples) // size, 1)
    return list(samples.tensor_split(count))


def _classes(model: ir.Model) -> int:
    """The number of scores in the first output; 0 when it is no vector of scores."""
    shape = list(model.graph.outputs[0].shape or ())
    return int(shape[1]) if len(shape) == 2 and isinstance(shape[1], int) and shape[1] > 1 else 0

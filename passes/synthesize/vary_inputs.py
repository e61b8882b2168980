"""`vary-inputs`: pictures as varied as photographs are, for what is fitted to inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..base import Pass
from ..context import Context
from .scenes import scenes

__all__ = ["VaryInputs"]

_SMALLEST = 8  # pixels a side
_COLOURS = 3


@dataclass(frozen=True)
class VaryInputs(Pass):
    """Synthesised pictures in colour  ⇒  as many, or `samples`, of textured scenes from any distance, to fit weights to

    Each channel spans what it spans in the pictures of the likeliest convention, which are replaced. Ranges of
    activations go on being observed on what `synthesize-inputs` made; what fits weights (`round-weights`,
    `reconstruct`, `prune`, `recover`) reads these.
    """

    samples: int | None = None
    name: ClassVar[str] = "vary-inputs"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        made = list(context.likeliest or context.synthetic or ())
        if context.data or not made:
            reason = "real samples were given" if context.data else "no pictures: put synthesize-inputs before it"
            context.record.skip("inputs", reason)
            return
        (name, first), *others = made[0].items()
        shape = first.shape
        axis = next((a for a in (1, 3) if len(shape) == 4 and shape[a] == _COLOURS), None)
        if others or axis is None or min(size for a, size in enumerate(shape) if a not in (0, axis)) < _SMALLEST:
            context.record.skip(name, "no single input of pictures in colour")
            return
        count = self.samples or sum(len(feed[name]) for feed in made)
        runs = max(count // len(first), 1)
        if not context.record.change(name, f"{runs * len(first)} scenes"):
            return
        samples = _spanning(np.concatenate([feed[name] for feed in made]), axis, runs * len(first), context.rng())
        batches = np.split(samples, runs)
        context.likeliest = [{name: batch} for batch in batches]


def _spanning(
    pictures: npt.NDArray[np.generic], axis: int, count: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Scenes in the layout of the pictures, from the lowest to the highest value of each of their channels."""
    given = np.moveaxis(np.asarray(pictures, np.float32), axis, 1)
    low, high = (f(given, (0, 2, 3), keepdims=True) for f in (np.min, np.max))
    made = np.clip(low + (high - low) * scenes(rng, count, *given.shape[1:]), low, high)
    return np.ascontiguousarray(np.moveaxis(made, 1, axis), np.float32)

"""`sparsify`: N:M, block and unstructured zeros, with the optimal update of the weights that stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ...ir import shapes
from ...ir.layers import layer_of
from ...targets.target import Target
from ..base import Pass
from ..context import Context
from .evidence import expected, observe
from .sparse_patterns import parse_pattern

__all__ = ["Sparsify"]

_WIDEST = 1152  # the search takes outputs·n³/2 operations; beyond, minutes a layer


@dataclass(frozen=True)
class Sparsify(Pass):
    """W  ⇒  W′ with zeros in a pattern, argmin ‖W·x − W′·x‖² by Optimal Brain Surgeon

    pattern: `n:m`, at most n of m neighbouring input channels; `block:50%`, that share of the blocks that one weight
    register of the target's instruction holds (4×4 for sdot, outputs by inputs; 4×1 without a target), or `8x1:50%`
    for blocks of your own; or `50%`, that share of every layer anywhere in it.
    method: `exact-obs` chooses one by one and makes up for each, `l-obs` ranks them once (plain percentages only).
    The Gram matrix is taken over the user's or synthesised inputs; without any its diagonal is what BatchNorm left, and
    where that is nothing it is the identity, so the smallest weights go. A mask saves nothing by itself: the record
    says whether the target has such a format.
    """

    pattern: str = "2:4"
    method: Literal["exact-obs", "l-obs"] = "exact-obs"
    rows: int = 8192
    name: ClassVar[str] = "sparsify"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        pattern = parse_pattern(self.pattern, self.method, context.target)
        shapes.infer(model)
        feeds = list(context.data or context.synthetic or ())
        layers = [layer for node in model.graph if (layer := layer_of(node)) is not None]
        usable = [x for x in layers if not x.depthwise and x.matrix().shape[1] >= pattern.least_channels]
        moments = observe(model, usable, feeds, self.rows, context.rng()) if feeds else expected(model, usable)
        for done, layer in enumerate(layers):
            context.progress("sparse patterns", done / len(layers))
            if layer not in usable:
                context.record.skip(layer.node, f"fewer than {pattern.least_channels} input channels")
            elif layer.matrix()[0].size > _WIDEST:
                context.record.skip(layer.node, f"more than {_WIDEST} inputs")
            elif context.record.change(layer.node, str(pattern)):
                layer.store(pattern.apply(layer.matrix(), moments.get(layer.name)), layer.offset())
        context.record.note(_worth(self.pattern, context.target))


def _worth(pattern: str, target: Target | None) -> str:
    if target is not None and f"sparse-{pattern}" in target.features:
        return f"{target} reads {pattern} weights in its own format: fewer bytes, and fewer cycles where it says so"
    return f"{pattern} masks are not smaller or faster on {target or 'an unnamed target'}"

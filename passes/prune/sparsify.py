"""`sparsify`: N:M patterns along the input channels, with the optimal update of the weights that stay."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...errors import UsageError
from ...ir import shapes
from ..base import Pass
from ..context import Context
from .evidence import Moments, observe
from .layers import Floats, Layer, layer_of
from .unstructured import n_of_m

__all__ = ["Sparsify"]

_WIDEST = 1152  # the search takes outputs·n³/2 operations; beyond, minutes a layer
_DAMPING = 1e-2  # of the mean diagonal; directions the inputs never excite would make H singular


@dataclass(frozen=True)
class Sparsify(Pass):
    """W  ⇒  W′ with at most n of m neighbouring input channels non-zero, argmin ‖W·x − W′·x‖² by ExactOBS

    pattern: `n:m`. The Gram matrix is taken over the user's or synthesised inputs; without any it is the identity, so
    the smallest weights go. A mask saves nothing by itself: the record says whether the target has such a format.
    """

    pattern: str = "2:4"
    rows: int = 8192
    name: ClassVar[str] = "sparsify"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        match = re.fullmatch(r"(\d+):(\d+)", self.pattern)
        if match is None or not 0 < int(match[1]) < int(match[2]):
            hint = "write sparsify{pattern=2:4}"
            raise UsageError(f"{self.pattern!r} is not an N:M pattern", where="sparsify", hint=hint)
        n, m = int(match[1]), int(match[2])
        shapes.infer(model)
        feeds = list(context.data or context.synthetic or ())
        layers = [layer for node in model.graph if (layer := layer_of(node)) is not None]
        usable = [x for x in layers if not x.depthwise and x.matrix().shape[1] >= m]
        moments = observe(model, usable, feeds, self.rows, context.rng()) if feeds else {}
        for layer in layers:
            if layer not in usable:
                context.record.skip(layer.node, f"fewer than {m} input channels")
            elif layer.matrix()[0].size > _WIDEST:
                context.record.skip(layer.node, f"more than {_WIDEST} inputs")
            elif context.record.change(layer.node, f"{n} of {m} input channels"):
                layer.store(_sparse(layer, moments.get(layer.name), n, m), layer.offset())
        context.record.note(
            f"{self.pattern} masks are not smaller or faster on {context.target or 'an unnamed target'}"
        )


def _sparse(layer: Layer, moments: Moments | None, n: int, m: int) -> Floats:
    """Every tap of the kernel has its own runs of m channels: columns are ordered tap by tap for the search."""
    weight = layer.matrix()
    outputs, width, taps = weight.shape
    order = np.arange(width * taps).reshape(width, taps).T.ravel()
    padded = -(-width // m) * m  # each tap's channels fill whole buckets, so no bucket spans two taps
    slots = (np.arange(taps)[:, None] * padded + np.arange(width)).ravel()
    size = taps * padded
    gram = np.eye(size)
    if moments is not None:
        inner = moments.covariance + np.outer(moments.mean, moments.mean)
        gram[np.ix_(slots, slots)] = inner[np.ix_(order, order)]
        scale = float(np.trace(inner)) / len(inner)
        gram += _DAMPING * max(scale, 1e-12) * np.eye(size)
    inverse = np.linalg.inv(gram)
    result = np.empty((outputs, width * taps))
    flat = weight.reshape(outputs, -1)
    for o in range(outputs):
        row = np.zeros(size)
        row[slots] = flat[o, order]
        result[o, order] = n_of_m(row, inverse, n, m)[slots]
    return result.reshape(weight.shape)

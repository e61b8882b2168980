"""`sparsify`: N:M and unstructured zeros, with the optimal update of the weights that stay."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ...errors import UsageError
from ...ir import shapes
from ...ir.layers import Floats, layer_of
from ...targets.target import Target
from ..base import Pass
from ..context import Context
from .evidence import Moments, observe
from .unstructured import exact_obs_layer, l_obs, n_of_m

__all__ = ["Sparsify"]

_WIDEST = 1152  # the search takes outputs·n³/2 operations; beyond, minutes a layer
_DAMPING = 1e-2  # of the mean diagonal; directions the inputs never excite would make H singular


@dataclass(frozen=True)
class Sparsify(Pass):
    """W  ⇒  W′ with zeros in a pattern, argmin ‖W·x − W′·x‖² by Optimal Brain Surgeon

    pattern: `n:m`, at most n of m neighbouring input channels; or `50%`, that share of every layer anywhere in it.
    method: `exact-obs` chooses weight by weight and makes up for each, `l-obs` ranks them once (percentages only).
    The Gram matrix is taken over the user's or synthesised inputs; without any it is the identity, so the smallest
    weights go. A mask saves nothing by itself: the record says whether the target has such a format.
    """

    pattern: str = "2:4"
    method: Literal["exact-obs", "l-obs"] = "exact-obs"
    rows: int = 8192
    name: ClassVar[str] = "sparsify"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        pattern = _parse(self.pattern, self.method)
        shapes.infer(model)
        feeds = list(context.data or context.synthetic or ())
        layers = [layer for node in model.graph if (layer := layer_of(node)) is not None]
        usable = [x for x in layers if not x.depthwise and x.matrix().shape[1] >= pattern.least_channels]
        moments = observe(model, usable, feeds, self.rows, context.rng()) if feeds else {}
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


@dataclass(frozen=True)
class _Buckets:
    """At most n of every m neighbouring input channels, tap by tap."""

    n: int
    m: int

    def __str__(self) -> str:
        return f"{self.n} of {self.m} input channels"

    @property
    def least_channels(self) -> int:
        return self.m

    def apply(self, weight: Floats, moments: Moments | None) -> Floats:
        """Columns are ordered tap by tap for the search: every tap of the kernel has its own runs of m channels."""
        outputs, width, taps = weight.shape
        order = np.arange(width * taps).reshape(width, taps).T.ravel()
        padded = -(-width // self.m) * self.m  # each tap's channels fill whole buckets, so no bucket spans two taps
        slots = (np.arange(taps)[:, None] * padded + np.arange(width)).ravel()
        hessian = np.eye(taps * padded)
        hessian[np.ix_(slots, slots)] = _hessian(width * taps, moments)[np.ix_(order, order)]
        inverse = np.linalg.inv(hessian)
        result = np.empty((outputs, width * taps))
        flat = weight.reshape(outputs, -1)
        for o in range(outputs):
            row = np.zeros(len(hessian))
            row[slots] = flat[o, order]
            result[o, order] = n_of_m(row, inverse, self.n, self.m)[slots]
        return result.reshape(weight.shape)


@dataclass(frozen=True)
class _Share:
    """A share of a layer's weights, anywhere in it."""

    share: float
    search: Callable[[Floats, Floats, int], Floats]

    def __str__(self) -> str:
        return f"{100 * self.share:g} % of the weights"

    @property
    def least_channels(self) -> int:
        return 1

    def apply(self, weight: Floats, moments: Moments | None) -> Floats:
        flat = weight.reshape(len(weight), -1)
        inverse = np.linalg.inv(_hessian(flat.shape[1], moments))
        return self.search(flat, inverse, round(self.share * flat.size)).reshape(weight.shape)


def _parse(text: str, method: str) -> _Buckets | _Share:
    buckets = re.fullmatch(r"(\d+):(\d+)", text)
    if buckets is not None and 0 < int(buckets[1]) < int(buckets[2]) and method == "exact-obs":
        return _Buckets(int(buckets[1]), int(buckets[2]))
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if share is not None and 0 < float(share[1]) < 100:
        return _Share(float(share[1]) / 100, l_obs if method == "l-obs" else exact_obs_layer)
    hint = "write sparsify{pattern=2:4}, or sparsify{pattern=50% method=l-obs}"
    raise UsageError(f"{text!r} is not a pattern for {method}", where="sparsify", hint=hint)


def _hessian(size: int, moments: Moments | None) -> Floats:
    """E[x·xᵀ] and some of its mean diagonal; the identity without inputs."""
    if moments is None:
        return np.eye(size)
    inner = moments.covariance + np.outer(moments.mean, moments.mean)
    scale = float(np.trace(inner)) / len(inner)
    return np.asarray(inner + _DAMPING * max(scale, 1e-12) * np.eye(size))

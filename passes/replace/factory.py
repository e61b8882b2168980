"""What a layer may be replaced by: chains of smaller layers, each made by a factory from the layer's own weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.graph import static_shape
from ...ir.layers import Layer
from ...ir.windows import conv_attributes
from ..prune.evidence import Moments

__all__ = ["Candidate", "Factory", "Piece", "Site", "missed", "pointwise", "ranks", "solve"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """One node of a replacement: an operator with its weights, applied to the result of the piece before it."""

    op: str
    weights: tuple[Array, ...] = ()
    attributes: Mapping[str, int | Sequence[int]] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return sum(w.size for w in self.weights)


@dataclass(frozen=True)
class Candidate:
    """A replacement for one layer. factory and detail name it; error: share of the output's variance that it misses."""

    factory: str
    detail: str
    pieces: tuple[Piece, ...]
    error: float

    @property
    def parameters(self) -> int:
        return sum(piece.parameters for piece in self.pieces)

    def __str__(self) -> str:
        return f"{self.factory} {self.detail}".rstrip()


@dataclass(frozen=True)
class Site:
    """A layer with what is known of its inputs: y = W·x + b, W as [outputs, channels, taps].

    moments: mean and covariance of x; None where nothing was observed, and every direction counts alike. trust: how
    far they can be believed, see `trusts`.
    """

    layer: Layer
    moments: Moments | None
    trust: float = 1.0

    @property
    def node(self) -> ir.Node:
        return self.layer.node

    @property
    def kernel(self) -> tuple[int, ...]:
        """Spatial extent of the kernel; () for Gemm and MatMul."""
        shape = static_shape(self.layer.weight) or ()
        return shape[2:] if self.node.op_type == "Conv" else ()

    @cached_property
    def matrix(self) -> Floats:
        """[outputs, channels · taps]"""
        matrix = np.asarray(self.layer.matrix(), np.float64)
        return matrix.reshape(len(matrix), -1)

    @property
    def bias(self) -> Floats:
        return np.asarray(self.layer.offset(), np.float64)

    @property
    def mean(self) -> Floats:
        width = self.matrix.shape[1]
        return np.zeros(width) if self.moments is None else np.asarray(self.moments.mean, np.float64)

    @cached_property
    def observed(self) -> Floats:
        """Covariance of x as it was observed, as far as it can be believed; the identity where nothing was.

        Fewer samples than inputs say nothing of most directions, and inputs that leave the layer idle little: as large
        a share of the variance is taken to be alike in all.
        """
        width = self.matrix.shape[1]
        if self.moments is None:
            return np.eye(width)
        found = np.asarray(self.moments.covariance, np.float64)
        seen = min(self.moments.samples / width, 1.0) * self.trust
        if seen == 1.0:
            return found
        return np.asarray(seen * found + (1.0 - seen) * float(np.trace(found)) / width * np.eye(width), np.float64)

    def covariance(self, ridge: float = 1e-3) -> Floats:
        """Covariance of x with a little of its mean variance on the diagonal, so that it can be inverted."""
        found = self.observed
        if self.moments is None:
            return found
        width = len(found)
        extra = ridge + width / self.moments.samples * 0.1
        ridged: Floats = found + extra * max(float(np.trace(found)) / width, 1e-30) * np.eye(width)
        return ridged

    def windows(self) -> dict[str, list[int]]:
        """strides, dilations and pads of a Conv, written out."""
        x, shape = self.node.inputs[0], static_shape(self.node.inputs[1])
        assert x is not None and shape is not None
        size = tuple(d if isinstance(d, int) else 0 for d in list(x.shape or ())[2:])
        found = conv_attributes(self.node, lambda: size, shape)
        return {name: list(found[name]) for name in ("strides", "dilations", "pads")}


Factory = Callable[[Site], Iterator[Candidate]]


def solve(site: Site, features: Floats) -> tuple[Floats, Floats, float]:
    """Best last layer on given features of x: `B = W·C·Aᵀ(A·C·Aᵀ)⁻¹`, `b′ = b + (W − B·A)·E[x]`.

    features: A, [features, channels · taps]. Returns B [outputs, features], b′, and the share of the output's variance
    that is missed (`missed`).
    """
    weight = site.matrix
    seen = features @ site.covariance()
    gram = seen @ features.T
    scale = max(float(np.trace(gram)) / len(gram), 1e-30)
    found = np.linalg.solve(gram + 1e-9 * scale * np.eye(len(gram)), seen @ weight.T)
    coefficients: Floats = np.asarray(found.T, np.float64)
    rest: Floats = np.asarray(weight - coefficients @ features, np.float64)
    bias: Floats = np.asarray(site.bias + rest @ site.mean, np.float64)
    return coefficients, bias, missed(site, rest)


def missed(site: Site, rest: Floats) -> float:
    """Share of the output's observed variance in what is left of the weights: `tr(R·C·Rᵀ) / tr(W·C·Wᵀ)`."""
    covariance, weight = site.observed, site.matrix
    share = float(np.sum((rest @ covariance) * rest)) / max(float(np.sum((weight @ covariance) * weight)), 1e-30)
    return min(max(share, 0.0), 1.0)


def pointwise(matrix: Floats, bias: Floats) -> Piece:
    """A 1×1 convolution: `matrix` is [outputs, channels]."""
    weight = np.ascontiguousarray(matrix[:, :, None, None], np.float32)
    return Piece("Conv", (weight, bias.astype(np.float32)), {"kernel_shape": [1, 1]})


def ranks(full: int, most: int, parts: int = 8) -> Sequence[int]:
    """A few ranks up to `most`, finer where they are small; none when even rank 1 is more than `most`."""
    top = min(full, most)
    return sorted({max(1, math.floor(top * (i + 1) / parts)) for i in range(parts)}) if top >= 1 else []

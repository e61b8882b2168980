"""Where zeros may lie in a layer's weight, and the optimal weights that are left: N:M, blocks, or anywhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...errors import UsageError
from ...ir.layers import Floats
from ...targets.target import Target
from .evidence import Moments
from .unstructured import exact_obs_layer, l_obs, n_of_m, obs_blocks

__all__ = ["Pattern", "parse_pattern"]

Ints = npt.NDArray[np.int64]

_DAMPING = 1e-2  # of the mean diagonal; directions the inputs never excite would make H singular


class Pattern(Protocol):
    """A rule for zeros. least_channels: layers with fewer input channels are left alone."""

    @property
    def least_channels(self) -> int: ...

    def apply(self, weight: Floats, moments: Moments | None) -> Floats:
        """The weight [outputs, channels, taps] in the pattern, closest to the old one in its outputs."""
        ...


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
        rows, hessian, slots = _tap_by_tap(weight, moments, self.m)
        inverse = np.linalg.inv(hessian)
        found = np.stack([n_of_m(row, inverse, self.n, self.m) for row in rows])
        return _channel_by_channel(found, slots, weight.shape)


@dataclass(frozen=True)
class _Blocks:
    """A share of all blocks of `outputs` neighbouring output channels by `inputs` input channels, tap by tap."""

    outputs: int
    inputs: int
    share: float

    def __str__(self) -> str:
        return f"{100 * self.share:g} % of the blocks of {self.outputs}×{self.inputs}"

    @property
    def least_channels(self) -> int:
        return self.inputs

    def apply(self, weight: Floats, moments: Moments | None) -> Floats:
        rows, hessian, slots = _tap_by_tap(weight, moments, self.inputs)
        columns = np.arange(len(hessian)).reshape(-1, self.inputs)
        bands = -(-len(rows) // self.outputs)
        found = obs_blocks(rows, hessian, columns, self.outputs, round(self.share * bands * len(columns)))
        return _channel_by_channel(found, slots, weight.shape)


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


def parse_pattern(text: str, method: str, target: Target | None) -> Pattern:
    """`2:4`, `50%`, `block:50%` (blocks of the target's instruction) or `8x1:50%`; UsageError for anything else."""
    buckets = re.fullmatch(r"(\d+):(\d+)", text)
    if buckets is not None and 0 < int(buckets[1]) < int(buckets[2]) and method == "exact-obs":
        return _Buckets(int(buckets[1]), int(buckets[2]))
    share = re.fullmatch(r"(?:(block|[1-9]\d*x[1-9]\d*):)?(\d+(?:\.\d+)?)%", text)
    if share is not None and 0 < float(share[2]) < 100:
        part = float(share[2]) / 100
        if share[1] is None:
            return _Share(part, l_obs if method == "l-obs" else exact_obs_layer)
        if method == "exact-obs":
            return _Blocks(*_block_of(share[1], target), part)
    hint = "write sparsify{pattern=2:4}, sparsify{pattern=block:50%}, or sparsify{pattern=50% method=l-obs}"
    raise UsageError(f"{text!r} is not a pattern for {method}", where="sparsify", hint=hint)


def _block_of(text: str, target: Target | None) -> tuple[int, int]:
    """Outputs and inputs: `8x1`, or what one register of weights holds and a kernel could leave out as a whole."""
    if text != "block":
        outputs, inputs = text.split("x")
        return int(outputs), int(inputs)
    if target is None:
        return 4, 1
    if target.instruction is None:
        return target.channel_alignment, 1
    return target.instruction.lanes, target.instruction.depth


def _tap_by_tap(weight: Floats, moments: Moments | None, m: int) -> tuple[Floats, Floats, Ints]:
    """Rows and their H with the channels of each tap side by side, filled up to runs of m, and where each column lies.

    A run of m columns then never spans two taps of the kernel.
    """
    outputs, width, taps = weight.shape
    padded = -(-width // m) * m
    slots = (np.arange(taps) * padded + np.arange(width)[:, None]).ravel()
    hessian = np.eye(taps * padded)
    hessian[np.ix_(slots, slots)] = _hessian(width * taps, moments)
    rows = np.zeros((outputs, taps * padded))
    rows[:, slots] = weight.reshape(outputs, -1)
    return rows, hessian, slots


def _channel_by_channel(rows: Floats, slots: Ints, shape: tuple[int, ...]) -> Floats:
    return rows[:, slots].reshape(shape)


def _hessian(size: int, moments: Moments | None) -> Floats:
    """E[x·xᵀ] and some of its mean diagonal; the identity without inputs."""
    if moments is None:
        return np.eye(size)
    inner = moments.covariance + np.outer(moments.mean, moments.mean)
    scale = float(np.trace(inner)) / len(inner)
    return np.asarray(inner + _DAMPING * max(scale, 1e-12) * np.eye(size))

"""Averages and maxima read as integer operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..quantization import integer_range
from ..windows import pool_attributes, window_counts
from .movement import move
from .site import Site, multiplier
from .steps import Refusal

__all__ = [
    "average_pool",
    "global_average_pool",
    "global_max_pool",
    "max_pool",
    "reduce_max",
    "reduce_mean",
    "reduce_sum",
]


def average_pool(site: Site) -> None:
    """AveragePool(DQ(x)) ▸ Q  ⇒  average_pool; positions that count fewer elements have their own multiplier."""
    attributes = _window(site)
    pads = pool_attributes(site.node, site.spatial, ceil=False)["pads"]
    counted = bool(site.attribute("count_include_pad", 0))
    if not any(attributes["pads"]) or (counted and attributes["pads"] == pads):
        counts = np.asarray(np.prod(attributes["kernel"]), np.int64)
    else:
        counts = window_counts(site.spatial(), attributes, pads, counted)
    if (counts == 0).any():
        raise Refusal("a window holds no element")
    if counts.min() == counts.max():
        counts = counts.max()
    _average(site, "average_pool", int(np.prod(attributes["kernel"])), np.asarray(counts), attributes)


def _window(site: Site) -> dict[str, Any]:
    attributes = pool_attributes(site.node, site.spatial)
    if min(attributes["pads"]) < 0:
        raise Refusal("the padding is negative")
    return attributes


def global_average_pool(site: Site) -> None:
    """GlobalAveragePool(DQ(x)) ▸ Q  ⇒  mean over the spatial axes."""
    _mean(site, list(range(2, site.rank(0))), keepdims=True)


def reduce_mean(site: Site) -> None:
    """ReduceMean(DQ(x)) ▸ Q  ⇒  mean."""
    axes = site.integers(1, "axes")
    if not axes and site.attribute("noop_with_empty_axes", 0):
        raise Refusal("the mean over no axis")
    _mean(site, axes or list(range(site.rank(0))), keepdims=bool(site.attribute("keepdims", 1)))


def reduce_sum(site: Site) -> None:
    """ReduceSum(DQ(x)) ▸ Q  ⇒  mean with a count of 1."""
    axes = site.integers(1, "axes")
    if not axes and site.attribute("noop_with_empty_axes", 0):
        raise Refusal("the sum over no axis")
    _mean(site, axes or list(range(site.rank(0))), keepdims=bool(site.attribute("keepdims", 1)), count=1)


def _mean(site: Site, axes: list[int], keepdims: bool, count: int | None = None) -> None:
    axes = sorted(site.axis(a) for a in axes)
    summed = int(np.prod(site.sizes(0, axes), dtype=np.int64))
    divisor = np.asarray(summed if count is None else count, np.int64)
    _average(site, "mean", summed, divisor, {"axes": tuple(axes), "keepdims": keepdims})


def _average(site: Site, kind: str, summed: int, counts: npt.NDArray[np.int64], attributes: dict[str, Any]) -> None:
    """The sum of `summed` levels, divided by counts."""
    x = site.operand(0)
    assert x.encoding is not None
    low, high = integer_range(x.encoding.dtype)
    if summed * (high - low) > site.arithmetic.limit:
        raise Refusal("the sum could overflow the accumulator")
    sink = site.sink()
    over = 1.0 if sink is None else np.float64(sink.encoding.scale)
    m = multiplier(x.encoding.scale, over=over * counts.astype(np.float64))
    site.emit(kind, (x,), sink, multiplier=m, attributes=attributes)


def max_pool(site: Site) -> None:
    """MaxPool(DQ(x)) [▸ Q]  ⇒  max_pool on the integers."""
    if len(site.node.outputs) > 1 and site.node.outputs[1].uses():
        raise Refusal("the indices of the maxima are used")
    if site.attribute("storage_order", 0):
        raise Refusal("column-major storage order")
    move(site, "max_pool", _window(site))


def global_max_pool(site: Site) -> None:
    """GlobalMaxPool(DQ(x)) [▸ Q]  ⇒  max over the spatial axes."""
    move(site, "max", {"axes": tuple(range(2, site.rank(0))), "keepdims": True})


def reduce_max(site: Site) -> None:
    """ReduceMax(DQ(x)) [▸ Q]  ⇒  max."""
    axes = site.integers(1, "axes")
    if not axes and site.attribute("noop_with_empty_axes", 0):
        raise Refusal("the maximum over no axis")
    chosen = tuple(sorted(site.axis(a) for a in axes or range(site.rank(0))))
    move(site, "max", {"axes": chosen, "keepdims": bool(site.attribute("keepdims", 1))})

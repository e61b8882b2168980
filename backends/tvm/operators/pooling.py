"""Means, average and max pools on integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....ir.windows import output_size
from .kernel import Kernel
from .located import Located, View

__all__ = ["average_pool", "max_", "max_pool", "mean"]

_UNROLLED = 4  # elements of a window beside each other


def mean(kernel: Kernel) -> Located:
    """acc = Σ (x − z_x) over the axes; y = clip(rint(float32(acc) · m) + z_y, low, high)."""
    assert kernel.op.multiplier is not None
    factor, clip = kernel.array(kernel.op.multiplier.reshape(1), "multiplier")[0], kernel.levels()
    return _reduce(kernel, kernel.te.sum, lambda acc: clip(acc.astype("float32") * factor), kernel.result_type)


def max_(kernel: Kernel) -> Located:
    """The largest integer over the axes."""
    dtype = kernel.operands[0].dtype
    return _reduce(kernel, kernel.te.max, lambda acc: acc.astype(dtype), dtype)


def _reduce(kernel: Kernel, reducer: Any, finish: Any, dtype: str) -> Located:
    te, axes = kernel.te, [int(a) for a in kernel.op.attributes["axes"]]
    x = kernel.operand()
    value: Callable[..., Any] = kernel.centered(x)
    if reducer is te.max:
        value = x
    reduced = [te.reduce_axis((0, x.shape[a]), name=f"r{a}") for a in axes]
    kept = [a for a in range(len(x.shape)) if a not in axes]

    def at(index: tuple[Any, ...]) -> list[Any]:
        place = dict(zip(kept, index, strict=True)) | dict(zip(axes, reduced, strict=True))
        return [place[a] for a in range(len(x.shape))]

    extents = [x.shape[a] for a in kept] or [1]
    acc = te.compute(extents, lambda *i: reducer(value(*at(i if kept else ())), axis=reduced), name="acc")
    keep = bool(kernel.op.attributes["keepdims"])
    shape = [d if a in kept else 1 for a, d in enumerate(x.shape)] if keep else [x.shape[a] for a in kept]

    def element(*index: Any) -> Any:
        own = [i for a, i in enumerate(index) if a in kept] if keep else list(index)
        return finish(acc(*(own or [0])))

    return kernel.result(shape, element, dtype=dtype, schedule=kernel.last_axis_innermost)


def _window(kernel: Kernel, x: View) -> tuple[Any, Any, list[int]]:
    """Positions in the operand of a window's elements, whether they are inside, and the output's spatial size."""
    attributes, tirx = kernel.op.attributes, kernel.tirx
    size, taps = x.shape[2:], attributes["kernel"]
    rank = len(size)
    stride, dilation, pads = attributes["strides"], attributes["dilations"], attributes["pads"]

    def position(out: tuple[Any, ...], tap: list[Any]) -> list[Any]:
        return [out[d] * int(stride[d]) + tap[d] * int(dilation[d]) - int(pads[d]) for d in range(rank)]

    def inside(at: list[Any]) -> Any:
        padded = [d for d in range(rank) if pads[d] or pads[d + rank]]
        conditions = [c for d in padded for c in (at[d] >= 0, at[d] < size[d])]
        return tirx.all(*conditions) if conditions else None

    outer = [output_size(size[d], taps[d], stride[d], dilation[d], pads[d], pads[d + rank]) for d in range(rank)]
    return position, inside, outer


def average_pool(kernel: Kernel) -> Located:
    """acc = Σ (x − z_x) over the window, padding adds nothing; one multiplier, or one for each position."""
    op, te = kernel.op, kernel.te
    assert op.multiplier is not None
    x = kernel.operand()
    value, clip = kernel.centered(x), kernel.levels()
    position, inside, size = _window(kernel, x)
    taps = [te.reduce_axis((0, int(k)), name=f"k{d}") for d, k in enumerate(op.attributes["kernel"])]

    def term(n: Any, c: Any, out: tuple[Any, ...]) -> Any:
        at = position(out, taps)
        within = inside(at)
        return value(n, c, *at) if within is None else kernel.tirx.if_then_else(within, value(n, c, *at), 0)

    n, c = x.shape[:2]
    acc = te.compute((n, *size, c), lambda b, *i: te.sum(term(b, i[-1], i[:-1]), axis=taps), name="acc")
    factors = kernel.array(np.broadcast_to(op.multiplier, size) if op.multiplier.ndim else op.multiplier, "multiplier")
    scattered = op.multiplier.ndim > 0

    def element(b: Any, k: Any, *i: Any) -> Any:
        return clip(acc(b, *i, k).astype("float32") * (factors(*i) if scattered else factors[()]))

    return kernel.result((n, c, *size), element, schedule=kernel.last_axis_innermost)


def max_pool(kernel: Kernel) -> Located:
    """The largest integer of each window; padding never wins."""
    te, tirx, x = kernel.te, kernel.tirx, kernel.operand()
    position, inside, size = _window(kernel, x)
    taps = [te.reduce_axis((0, int(k)), name=f"k{d}") for d, k in enumerate(kernel.op.attributes["kernel"])]
    dtype = x.place.dtype
    lowest = tirx.const(int(np.iinfo(dtype).min), dtype)

    def term(n: Any, c: Any, out: tuple[Any, ...]) -> Any:
        at = position(out, taps)
        within = inside(at)
        return x(n, c, *at) if within is None else tirx.if_then_else(within, x(n, c, *at), lowest)

    n, c = x.shape[:2]
    acc = te.compute((n, *size, c), lambda b, *i: te.max(term(b, i[-1], i[:-1]), axis=taps), name="acc")
    return kernel.result((n, c, *size), lambda b, k, *i: acc(b, *i, k), dtype=dtype, schedule=_in_registers(kernel))


def _in_registers(kernel: Kernel) -> Callable[[Any], Any]:
    """A schedule that takes the windows of a vector of channels in turn, and stores what it found once."""

    def schedule(function: Any) -> Any:
        from tvm.s_tir import Schedule

        sch = Schedule(function)
        acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
        width = kernel.width(int(sch.get(sch.get_loops(out)[-1]).extent))
        if width is None:
            return kernel.last_axis_innermost(function)
        outer, lane = sch.split(sch.get_loops(out)[-1], [None, width])
        sch.vectorize(lane)
        sch.compute_at(acc, outer, preserve_unit_loops=True)
        depth = len(kernel.op.attributes["kernel"])
        lane, *taps = sch.get_loops(acc)[-depth - 1 :]
        sch.reorder(*taps, lane)
        sch.vectorize(lane)
        init = sch.decompose_reduction(acc, taps[0])
        sch.vectorize(sch.get_loops(init)[-1])
        for tap in taps:
            if int(sch.get(tap).extent) <= _UNROLLED:
                sch.unroll(tap)
        return sch.mod["main"]

    return schedule

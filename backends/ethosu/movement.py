"""Operators that only move elements; a transpose is a note about the axis order until somebody needs another."""

from __future__ import annotations

import numpy as np

from ...ir.integer import IntegerOp
from ...targets.tflite import Tensor
from .site import NHWC, Axes, NoForm, Site, signed

__all__ = [
    "concat",
    "depth_to_space",
    "gather",
    "pad",
    "reshape",
    "slice_",
    "space_to_depth",
    "split",
    "transpose",
]

_MIRROR = {"reflect": "REFLECT"}


def reshape(site: Site, op: IntegerOp) -> None:
    """reshape  ⇒  RESHAPE of the row-major value."""
    x = site.operand(0)
    shape = list(op.attributes["shape"])
    if -1 in shape:
        shape[shape.index(-1)] = int(np.prod(x.shape)) // max(-int(np.prod(shape)), 1)
    site.give(site.reshaped(x, shape))


def transpose(site: Site, op: IntegerOp) -> None:
    """transpose  ⇒  the same tensor, its axes renamed."""
    place, perm = site.operands[0], op.attributes["perm"]
    site.give(place.tensor, tuple(perm.index(a) for a in place.axes))


def slice_(site: Site, op: IntegerOp) -> None:
    """slice  ⇒  SLICE, or STRIDED_SLICE where a step is larger than one."""
    place = site.operands[0]
    rank = len(place.axes)
    starts, sizes, steps = [0] * rank, list(place.tensor.shape), [1] * rank
    for axis, start, size, step in zip(*(op.attributes[k] for k in ("axes", "starts", "sizes", "steps")), strict=True):
        p = place.axes.index(axis)
        starts[p], sizes[p], steps[p] = start, size, step
    if min(steps) < 0:
        raise NoForm("a slice backwards")
    if max(steps) == 1:
        inputs = [place.tensor, site.integers(starts), site.integers(sizes)]
        site.give(site.apply("SLICE", inputs, sizes), place.axes)
        return
    ends = [a + (n - 1) * s + 1 for a, n, s in zip(starts, sizes, steps, strict=True)]
    inputs = [place.tensor, *(site.integers(v) for v in (starts, ends, steps))]
    masks = dict.fromkeys(("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask"), 0)
    site.give(site.apply("STRIDED_SLICE", inputs, sizes, **masks), place.axes)


def pad(site: Site, op: IntegerOp) -> None:
    """pad  ⇒  PAD with the zero point, PADV2 with another level, MIRROR_PAD by reflection."""
    place, rank = site.operands[0], len(site.operands[0].axes)
    pads = op.attributes["pads"]
    pairs = [(pads[a], pads[a + rank]) for a in place.axes]
    shape = [n + a + b for n, (a, b) in zip(place.tensor.shape, pairs, strict=True)]
    mode = op.attributes["mode"]
    if mode in _MIRROR:
        inputs = [place.tensor, site.integers(pairs)]
        site.give(site.apply("MIRROR_PAD", inputs, shape, mode=_MIRROR[mode]), place.axes)
        return
    if mode != "constant":
        raise NoForm(f"padding of mode {mode}")
    level = op.attributes["level"] - (0 if op.encoding is None else signed(op.encoding)[1])
    inputs = [place.tensor, site.integers(pairs)]
    zero = 0 if place.tensor.zero_point is None else int(place.tensor.zero_point)
    if level == zero:
        site.give(site.apply("PAD", inputs, shape), place.axes)
        return
    filling = np.full((1,), level, place.tensor.dtype)
    inputs.append(site.constant(filling, scale=place.tensor.scale, zero=place.tensor.zero_point))
    site.give(site.apply("PADV2", inputs, shape), place.axes)


def concat(site: Site, op: IntegerOp) -> None:
    """concat  ⇒  CONCATENATION in the axis order of the first operand."""
    axes = site.operands[0].axes
    tensors = [site.arranged(place, axes) for place in site.operands]
    axis = axes.index(op.attributes["axis"])
    shape = list(tensors[0].shape)
    shape[axis] = sum(t.shape[axis] for t in tensors)
    options = {"axis": axis, "fusedActivationFunction": "NONE"}
    site.give(site.apply("CONCATENATION", tensors, shape, **options), axes)


def split(site: Site, op: IntegerOp) -> None:
    """split  ⇒  SPLIT_V."""
    place, sizes = site.operands[0], op.attributes["sizes"]
    axis = place.axes.index(op.attributes["axis"])
    parts: list[Tensor] = []
    for n in sizes:
        shape = list(place.tensor.shape)
        shape[axis] = n
        parts.append(site.tensor(shape, place.tensor))
    inputs = [place.tensor, site.integers(sizes), site.constant(np.asarray(axis, np.int32))]
    site.add("SPLIT_V", inputs, parts, numSplits=len(sizes))
    for part in parts:
        site.give(part, place.axes)


def gather(site: Site, op: IntegerOp) -> None:
    """gather  ⇒  SLICE where the indices are consecutive, else GATHER."""
    place, indices = site.operands[0], op.attributes["indices"]
    axis = op.attributes["axis"]
    p = place.axes.index(axis)
    flat = indices.reshape(-1)
    if indices.ndim == 1 or indices.size == 1:
        shape = list(place.tensor.shape)
        shape[p] = flat.size
        if np.array_equal(flat, np.arange(flat[0], flat[0] + flat.size)):
            starts = [int(flat[0]) if q == p else 0 for q in range(len(shape))]
            taken = site.apply("SLICE", [place.tensor, site.integers(starts), site.integers(shape)], shape)
        else:
            inputs = [place.tensor, site.integers(flat)]
            taken = site.apply("GATHER", inputs, shape, axis=p, batchDims=0)
        if indices.ndim == 1:
            site.give(taken, place.axes)
            return
        if indices.ndim == 0:
            left = [a for a in place.axes if a != axis]
            rest = site.reshaped(taken, [n for q, n in enumerate(shape) if q != p])
            site.give(rest, tuple(a - (a > axis) for a in left))
            return
    raise NoForm(f"indices with {indices.ndim} dimensions")


def depth_to_space(site: Site, op: IntegerOp) -> None:
    """depth_to_space  ⇒  RESHAPE, TRANSPOSE, RESHAPE."""
    n, c, h, w = site.operands[0].shape
    b = op.attributes["blocksize"]
    crd = op.attributes["mode"] == "CRD"
    split_shape = [n, h, w, c // b**2, b, b] if crd else [n, h, w, b, b, c // b**2]
    perm = (0, 1, 4, 2, 5, 3) if crd else (0, 1, 3, 2, 4, 5)
    _through(site, split_shape, perm, [n, h * b, w * b, c // b**2])


def space_to_depth(site: Site, op: IntegerOp) -> None:
    """space_to_depth  ⇒  RESHAPE, TRANSPOSE, RESHAPE."""
    n, c, h, w = site.operands[0].shape
    b = op.attributes["blocksize"]
    _through(site, [n, h // b, b, w // b, b, c], (0, 1, 3, 2, 4, 5), [n, h // b, w // b, c * b**2])


def _through(site: Site, parts: list[int], perm: Axes, shape: list[int]) -> None:
    x = site.reshaped(site.operand(0, NHWC), parts)
    moved = site.apply("TRANSPOSE", [x, site.integers(perm)], [parts[p] for p in perm])
    site.give(site.reshaped(moved, shape), NHWC)

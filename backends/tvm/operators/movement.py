"""Operators that move integers unchanged: each result element is one operand element."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from .kernel import Kernel
from .located import Located, channels_last, row_major

__all__ = [
    "concat",
    "depth_to_space",
    "gather",
    "pad",
    "reshape",
    "resize",
    "slice_",
    "space_to_depth",
    "split",
    "transpose",
]


def _move(
    kernel: Kernel,
    shape: tuple[int, ...],
    source: Callable[..., tuple[Any, ...]],
    layout: tuple[int, ...] | None = None,
) -> Located:
    """result[index] = operand[source(index)]."""
    x = kernel.operand()
    layout = layout or _layout(kernel, len(shape))
    return kernel.result(shape, lambda *index: x(*source(*index)), layout, x.place.dtype)


def _layout(kernel: Kernel, rank: int) -> tuple[int, ...]:
    own = kernel.operands[0].layout
    return own if len(own) == rank else channels_last(rank)


def reshape(kernel: Kernel) -> Located:
    """The same elements in row-major order under another shape: no bytes move where both lie as ONNX sees them."""
    x = kernel.operands[0]
    shape = tuple(int(d) for d in kernel.op.attributes["shape"])
    if -1 in shape:
        known = -prod(shape)
        shape = tuple(prod(x.shape) // known if d == -1 else d for d in shape)
    if shape == x.shape:
        return x
    target = next(
        (
            row
            for row in (channels_last(len(shape)), row_major(len(shape)))
            if Located("", shape, x.dtype, row).lies_as(row_major(len(shape)))
        ),
        None,
    )
    if x.lies_as(row_major(len(x.shape))) and target is not None:
        stored = Located("", shape, x.dtype, target)
        return Located(kernel.program.view(x.tensor, stored.stored), shape, x.dtype, target)

    def source(*index: Any) -> tuple[Any, ...]:
        flat = reduce(lambda sum_, pair: sum_ * pair[1] + pair[0], zip(index, shape, strict=True), 0)
        found = []
        for extent in reversed(x.shape):
            found.append(kernel.tirx.floormod(flat, extent))
            flat = kernel.tirx.floordiv(flat, extent)
        return tuple(reversed(found))

    return _move(kernel, shape, source)


def transpose(kernel: Kernel) -> Located:
    """result[i] = operand[i under the inverse permutation]: the bytes stay where they are."""
    perm = [int(p) for p in kernel.op.attributes["perm"]]
    x = kernel.operands[0]
    # Stored axis k of the operand is logical axis perm.index(...) of the result.
    layout = tuple(perm.index(axis) for axis in x.layout)
    return Located(x.tensor, tuple(x.shape[p] for p in perm), x.dtype, layout)


def slice_(kernel: Kernel) -> Located:
    """result[i] = operand[start + i · step] along each axis."""
    attributes = kernel.op.attributes
    shape = list(kernel.operands[0].shape)
    moves = {}
    for axis, start, size, step in zip(*(attributes[k] for k in ("axes", "starts", "sizes", "steps")), strict=True):
        shape[axis], moves[int(axis)] = int(size), (int(start), int(step))

    def source(*index: Any) -> tuple[Any, ...]:
        return tuple(i if a not in moves else moves[a][0] + i * moves[a][1] for a, i in enumerate(index))

    return _move(kernel, tuple(shape), source)


def split(kernel: Kernel) -> list[Located]:
    """One kernel a part; see `slice_`."""
    axis, offset, parts = int(kernel.op.attributes["axis"]), 0, []
    for size in kernel.op.attributes["sizes"]:
        shape = tuple(int(size) if a == axis else d for a, d in enumerate(kernel.operands[0].shape))
        part = type(kernel)(kernel.program, kernel.op, kernel.operands, kernel.target)
        start = offset

        def source(*index: Any, start: int = start) -> tuple[Any, ...]:
            return tuple(i + start if a == axis else i for a, i in enumerate(index))

        parts.append(_move(part, shape, source))
        offset += int(size)
    return parts


def gather(kernel: Kernel) -> Located:
    """result[…, j…, …] = operand[…, indices[j…], …]."""
    axis, indices = int(kernel.op.attributes["axis"]), np.asarray(kernel.op.attributes["indices"], np.int32)
    x = kernel.operands[0]
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if indices.ndim == 0:
        kept = tuple(a - (a > axis) for a in x.layout if a != axis)
        return _move(kernel, shape, lambda *index: (*index[:axis], int(indices), *index[axis:]), kept)
    table = kernel.array(indices.reshape(-1), "indices")

    def source(*index: Any) -> tuple[Any, ...]:
        inner = index[axis : axis + indices.ndim]
        flat = reduce(lambda sum_, pair: sum_ * pair[1] + pair[0], zip(inner, indices.shape, strict=True), 0)
        return (*index[:axis], table[flat], *index[axis + indices.ndim :])

    return _move(kernel, shape, source)


def resize(kernel: Kernel) -> Located:
    """Nearest neighbour: along each given axis, result[i] = operand[indices[i]]."""
    attributes = kernel.op.attributes
    shape, tables = list(kernel.operands[0].shape), {}
    for axis, indices in zip(attributes["axes"], attributes["indices"], strict=True):
        shape[axis] = len(indices)
        tables[int(axis)] = kernel.array(np.asarray(indices, np.int32), f"indices{axis}")
    return _move(
        kernel, tuple(shape), lambda *index: tuple(tables[a][i] if a in tables else i for a, i in enumerate(index))
    )


def pad(kernel: Kernel) -> Located:
    """A border of `level`, or of the operand itself (reflect, edge, wrap)."""
    attributes, x, tirx = kernel.op.attributes, kernel.operand(), kernel.tirx
    rank, mode = len(x.shape), attributes["mode"]
    begin, end = attributes["pads"][:rank], attributes["pads"][rank:]
    shape = tuple(int(b) + d + int(e) for b, d, e in zip(begin, x.shape, end, strict=True))
    moved = [a for a in range(rank) if begin[a] or end[a]]
    level = kernel.scalar(attributes["level"], x.place.dtype, "level")
    sources = {
        a: kernel.array(np.pad(np.arange(x.shape[a], dtype=np.int32), (begin[a], end[a]), mode=mode), f"source{a}")
        for a in (moved if mode != "constant" else ())
    }

    def element(*index: Any) -> Any:
        if sources:
            return x(*(sources[a][i] if a in sources else i for a, i in enumerate(index)))
        at = [i - int(b) for i, b in zip(index, begin, strict=True)]
        inside = [c for a in moved for c in (at[a] >= 0, at[a] < x.shape[a])]
        return x(*at) if not inside else tirx.if_then_else(tirx.all(*inside), x(*at), level)

    return kernel.result(shape, element, x.place.layout, x.place.dtype)


def concat(kernel: Kernel) -> Located:
    """Operands one behind the other along an axis."""
    axis, tirx = int(kernel.op.attributes["axis"]), kernel.tirx
    views = [kernel.operand(i) for i in range(len(kernel.operands))]
    starts = np.cumsum([0, *(view.shape[axis] for view in views)])
    shape = tuple(int(starts[-1]) if a == axis else d for a, d in enumerate(views[0].shape))

    def element(*index: Any) -> Any:
        def part(k: int) -> Any:
            return views[k](*(i - int(starts[k]) if a == axis else i for a, i in enumerate(index)))

        value = part(len(views) - 1)
        for k in reversed(range(len(views) - 1)):
            value = tirx.if_then_else(index[axis] < int(starts[k + 1]), part(k), value)
        return value

    return kernel.result(shape, element, _layout(kernel, len(shape)), views[0].place.dtype)


def depth_to_space(kernel: Kernel) -> Located:
    """[N, C·b², H, W] to [N, C, H·b, W·b]; DCR: depth is the outer part of the channel, CRD: the inner."""
    b, column_first = int(kernel.op.attributes["blocksize"]), kernel.op.attributes["mode"] == "CRD"
    n, c, h, w = kernel.operands[0].shape
    depth, tirx = c // (b * b), kernel.tirx

    def source(n_: Any, d: Any, y: Any, x: Any) -> tuple[Any, ...]:
        corner = tirx.floormod(y, b) * b + tirx.floormod(x, b)
        channel = d * (b * b) + corner if column_first else corner * depth + d
        return n_, channel, tirx.floordiv(y, b), tirx.floordiv(x, b)

    return _move(kernel, (n, depth, h * b, w * b), source)


def space_to_depth(kernel: Kernel) -> Located:
    """[N, C, H, W] to [N, C·b², H/b, W/b], the block position outermost in the channel."""
    b = int(kernel.op.attributes["blocksize"])
    n, c, h, w = kernel.operands[0].shape
    tirx = kernel.tirx

    def source(n_: Any, d: Any, y: Any, x: Any) -> tuple[Any, ...]:
        corner = tirx.floordiv(d, c)
        return n_, tirx.floormod(d, c), y * b + tirx.floordiv(corner, b), x * b + tirx.floormod(corner, b)

    return _move(kernel, (n, c * b * b, h // b, w // b), source)

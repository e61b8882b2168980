"""ONNX operators that pick elements of tensors, in torch; arguments are named as in the ONNX specification."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .tensors import integers, leaf

Tensor = Any


def slice_(
    data: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None, *, rank: int | None = None
) -> Tensor:
    first, last = integers(starts), integers(ends)
    dims = list(range(len(first))) if axes is None else integers(axes)
    strides = [1] * len(first) if steps is None else integers(steps)
    if min(strides, default=1) < 1 or (rank is None and min(dims, default=0) < 0):
        return _slice(data, first, last, dims, strides)
    extents = [slice(None)] * (max(dims, default=-1) + 1 if rank is None else rank)
    for axis, start, end, step in zip(dims, first, last, strides, strict=True):
        stop = end if abs(end) < _FAR else None if end > 0 else 0
        extents[axis] = slice(start if start > -_FAR else None, stop, step)
    while extents and extents[-1] == slice(None):
        extents.pop()
    return data[tuple(extents)]


_FAR = 2**31 - 1  # from here on a number only means "from the start" or "to the end"


@leaf
def _slice(data: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Tensor:
    first, last = integers(starts), integers(ends)
    dims = list(range(len(first))) if axes is None else integers(axes)
    strides = [1] * len(first) if steps is None else integers(steps)
    for axis, start, end, step in zip(dims, first, last, strides, strict=True):
        extent = range(*slice(start, end, step).indices(data.shape[axis])) if step > 0 else None
        if extent is not None:
            data = data[(slice(None),) * (axis % data.dim()) + (slice(extent.start, max(extent.stop, 0), step),)]
        else:
            data = data.index_select(axis, _backwards(data.shape[axis], start, end, step, data.device))
    return data


def _backwards(size: int, start: int, end: int, step: int, device: Any) -> Tensor:
    start = min(start + size if start < 0 else start, size - 1)
    end = max(end + size if end < 0 else end, -1) if end >= -size else -1
    return torch.tensor(list(range(start, end, step)), dtype=torch.int64, device=device)


def gather(data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return data[(slice(None),) * axis + (indices,)] if axis >= 0 else _gather(data, indices, axis)


@leaf
def _gather(data: Tensor, indices: Tensor, axis: int) -> Tensor:
    return data[(slice(None),) * (axis % data.dim()) + (indices.long(),)]


@leaf
def gather_elements(data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    index = indices.long()
    kept = [slice(None) if i == axis % data.dim() else slice(0, n) for i, n in enumerate(index.shape)]
    return torch.gather(data[tuple(kept)], axis, torch.where(index < 0, index + data.shape[axis], index))


@leaf
def gather_nd(data: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    if not batch_dims:
        return data[indices.long().unbind(-1)]
    lead = data.shape[:batch_dims]
    flat, index = data.flatten(0, batch_dims - 1), indices.long().flatten(0, batch_dims - 1)
    rows = torch.stack([d[i.unbind(-1)] for d, i in zip(flat, index, strict=True)])
    return rows.reshape(*lead, *rows.shape[1:])


_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@leaf
def scatter_elements(
    data: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    index = indices.long()
    index = torch.where(index < 0, index + data.shape[axis], index)
    if reduction == "none":
        return data.scatter(axis, index, updates)
    return data.scatter_reduce(axis, index, updates, _REDUCE[reduction])


@leaf
def scatter_nd(data: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    sizes = data.shape[: indices.shape[-1]]
    rows = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for position, size in zip(indices.long().unbind(-1), sizes, strict=True):
        rows = rows * size + torch.where(position < 0, position + size, position)
    rest = data.shape[indices.shape[-1] :]
    flat, values = data.reshape(-1, *rest), updates.reshape(-1, *rest)
    index = rows.flatten()
    if reduction == "none":
        return flat.index_copy(0, index, values).reshape(data.shape)
    if reduction == "add":
        return flat.index_add(0, index, values).reshape(data.shape)
    return flat.index_reduce(0, index, values, _REDUCE[reduction]).reshape(data.shape)


@leaf
def one_hot(indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    count = int(depth)
    inside = (indices >= -count) & (indices < count)
    hot = F.one_hot(indices.long() % count, count).bool() & inside.unsqueeze(-1)
    return torch.where(hot, values[1], values[0]).movedim(-1, axis)


@leaf
def non_zero(X: Tensor) -> Tensor:
    return torch.nonzero(X).T


@leaf
def top_k(X: Tensor, K: Any = None, *, axis: int = -1, largest: int = 1, sorted: int = 1, k: Any = None) -> Any:
    """Of equal elements the one with the lower index comes first, hence a stable sort."""
    count = integers(k if K is None else K)[0]
    values, indices = torch.sort(X, dim=axis, descending=bool(largest), stable=True)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)


def arg_max(data: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    return _arg(data, axis, bool(keepdims), bool(select_last_index), torch.argmax)


def arg_min(data: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    return _arg(data, axis, bool(keepdims), bool(select_last_index), torch.argmin)


def _arg(data: Tensor, axis: int, keepdims: bool, last: bool, find: Any) -> Tensor:
    if last:
        return data.shape[axis] - 1 - find(torch.flip(data, (axis,)), axis, keepdims)
    return find(data, axis, keepdims)

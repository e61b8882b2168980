"""ONNX operators that move, select and describe tensors, in torch; arguments are named as in the ONNX specification."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from .tensors import integers, leaf, torch_dtype

Tensor = Any


def identity(input: Tensor) -> Tensor:
    return input


def cast(input: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return input.to(torch_dtype(to))


@leaf
def cast_like(input: Tensor, target_type: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return input.to(target_type.dtype)


@leaf
def shape(data: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(list(data.shape)[start:end], dtype=torch.int64, device=data.device)


@leaf
def size(data: Tensor) -> Tensor:
    return torch.tensor(data.numel(), dtype=torch.int64, device=data.device)


def concat(*inputs: Tensor, axis: int) -> Tensor:
    return torch.cat(inputs, axis)


def reshape(data: Tensor, shape: Any, *, allowzero: int = 0) -> Tensor:
    dims = integers(shape)
    if not allowzero:
        dims = [data.shape[i] if dim == 0 else dim for i, dim in enumerate(dims)]
    return torch.reshape(data, dims)


@leaf
def _flatten(input: Tensor, axis: int) -> Tensor:
    axis = axis + input.dim() if axis < 0 else axis
    return input.reshape(math.prod(input.shape[:axis]), math.prod(input.shape[axis:]))


def flatten(input: Tensor, *, axis: int = 1) -> Tensor:
    return torch.flatten(input, 1) if axis == 1 else _flatten(input, axis)


@leaf
def _reverse(data: Tensor) -> Tensor:
    return data.permute(*reversed(range(data.dim())))


def transpose(data: Tensor, *, perm: Any = None) -> Tensor:
    return _reverse(data) if perm is None else torch.permute(data, list(perm))


def squeeze(data: Tensor, axes: Any = None) -> Tensor:
    return torch.squeeze(data) if axes is None else torch.squeeze(data, tuple(integers(axes)))


@leaf
def _unsqueeze(data: Tensor, axes: list[int]) -> Tensor:
    rank = data.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        data = data.unsqueeze(axis)
    return data


def unsqueeze(data: Tensor, axes: Any) -> Tensor:
    dims = sorted(integers(axes))
    if len(dims) > 1 and dims[0] < 0:
        return _unsqueeze(data, dims)
    for axis in dims:
        data = torch.unsqueeze(data, axis)
    return data


@leaf
def expand(input: Tensor, shape: Any) -> Tensor:
    return input.expand(torch.broadcast_shapes(input.shape, tuple(integers(shape))))


@leaf
def tile(input: Tensor, repeats: Any, tiles: Any = None, axis: Any = None) -> Tensor:
    return input.repeat(*integers(repeats))


def split(input: Tensor, split: Any = None, *, axis: int = 0, num_outputs: int | None = None, outputs: int = 1) -> Any:
    if split is not None:
        return torch.split(input, integers(split), axis)
    return _split_evenly(input, num_outputs or outputs, axis)


@leaf
def _split_evenly(input: Tensor, parts: int, axis: int) -> Any:
    return torch.split(input, -(-input.shape[axis] // parts), axis)


@leaf
def slice_(data: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Tensor:
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


@leaf
def gather(data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
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
def constant_of_shape(input: Any, *, value: Any = None) -> Tensor:
    dims = integers(input)
    return torch.zeros(dims) if value is None else value.reshape([1] * len(dims)).expand(dims).clone()


@leaf
def range_(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


@leaf
def one_hot(indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    count = int(depth)
    inside = (indices >= -count) & (indices < count)
    hot = F.one_hot(indices.long() % count, count).bool() & inside.unsqueeze(-1)
    return torch.where(hot, values[1], values[0]).movedim(-1, axis)


@leaf
def trilu(input: Tensor, k: Any = 0, *, upper: int = 1) -> Tensor:
    diagonal = integers(0 if k is None else k)[0]
    return torch.triu(input, diagonal) if upper else torch.tril(input, diagonal)


@leaf
def eye_like(input: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    kind = input.dtype if dtype is None else torch_dtype(dtype)
    rows = torch.arange(input.shape[0], device=input.device).unsqueeze(1)
    return (torch.arange(input.shape[1], device=input.device) - rows == k).to(kind)


@leaf
def non_zero(X: Tensor) -> Tensor:
    return torch.nonzero(X).T


def depth_to_space(input: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    return torch.pixel_shuffle(input, blocksize) if mode == "CRD" else _depth_first(input, blocksize)


@leaf
def _depth_first(input: Tensor, block: int) -> Tensor:
    n, c, h, w = input.shape
    parts = input.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


@leaf
def space_to_depth(input: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    n, c, h, w = input.shape
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    parts = input.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize).permute(*order)
    return parts.reshape(n, c * blocksize**2, h // blocksize, w // blocksize)


@leaf
def pad(
    data: Tensor,
    pads: Any,
    constant_value: Any = None,
    axes: Any = None,
    *,
    mode: str = "constant",
    value: float = 0.0,
) -> Tensor:
    amounts = integers(pads)
    dims = list(range(data.dim())) if axes is None else [axis % data.dim() for axis in integers(axes)]
    ends = {axis: (amounts[i], amounts[i + len(dims)]) for i, axis in enumerate(dims)}
    for axis, (before, after) in ends.items():  # negative amounts crop, in every mode
        start, stop = max(-before, 0), data.shape[axis] - max(-after, 0)
        data = data.narrow(axis, start, stop - start)
    ends = {axis: (max(before, 0), max(after, 0)) for axis, (before, after) in ends.items()}
    if mode == "constant":
        fill = value if constant_value is None else float(constant_value)
        flat = [amount for axis in reversed(range(data.dim())) for amount in ends.get(axis, (0, 0))]
        return F.pad(data, flat, value=fill if data.is_floating_point() else int(fill))
    for axis, (before, after) in ends.items():
        if before or after:
            data = data.index_select(axis, _mirror(data.shape[axis], before, after, mode, data.device))
    return data


def _mirror(size: int, before: int, after: int, mode: str, device: Any) -> Tensor:
    """Source positions along one axis: reflect without the edge, repeat the edge, or wrap around."""
    position = torch.arange(-before, size + after, device=device)
    if mode == "edge":
        return position.clamp(0, size - 1)
    if mode == "wrap":
        return position % size
    period = max(2 * (size - 1), 1)
    position = position % period
    return torch.where(position < size, position, period - position)


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

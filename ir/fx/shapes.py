"""ONNX operators that reshape, join, pad and describe tensors, in torch; arguments are named as in ONNX."""

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
def constant_of_shape(input: Any, *, value: Any = None) -> Tensor:
    dims = integers(input)
    return torch.zeros(dims) if value is None else value.reshape([1] * len(dims)).expand(dims).clone()


@leaf
def range_(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


@leaf
def trilu(input: Tensor, k: Any = 0, *, upper: int = 1) -> Tensor:
    diagonal = integers(0 if k is None else k)[0]
    return torch.triu(input, diagonal) if upper else torch.tril(input, diagonal)


@leaf
def eye_like(input: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    kind = input.dtype if dtype is None else torch_dtype(dtype)
    rows = torch.arange(input.shape[0], device=input.device).unsqueeze(1)
    return (torch.arange(input.shape[1], device=input.device) - rows == k).to(kind)


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


def pad(
    data: Tensor,
    pads: Any,
    constant_value: Any = None,
    axes: Any = None,
    *,
    floating: bool | None = None,
    mode: str = "constant",
    value: float = 0.0,
) -> Tensor:
    fill = value if constant_value is None else constant_value
    if mode != "constant" or axes is not None or not floating or not isinstance(fill, float):
        return _pad(data, pads, fill, axes, mode)
    amounts = integers(pads)
    rank = len(amounts) // 2
    flat = [amount for axis in reversed(range(rank)) for amount in (amounts[axis], amounts[axis + rank])]
    while flat and not any(flat[-2:]):
        del flat[-2:]
    return F.pad(data, flat, value=fill)


@leaf
def _pad(data: Tensor, pads: Any, fill: Any, axes: Any, mode: str) -> Tensor:
    amounts = integers(pads)
    dims = list(range(data.dim())) if axes is None else [axis % data.dim() for axis in integers(axes)]
    ends = {axis: (amounts[i], amounts[i + len(dims)]) for i, axis in enumerate(dims)}
    for axis, (before, after) in ends.items():  # negative amounts crop, in every mode
        start, stop = max(-before, 0), data.shape[axis] - max(-after, 0)
        data = data.narrow(axis, start, stop - start)
    ends = {axis: (max(before, 0), max(after, 0)) for axis, (before, after) in ends.items()}
    if mode == "constant":
        fill = float(fill)
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

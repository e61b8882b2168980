"""ONNX convolution, pooling and normalisation in torch; arguments are named as in the ONNX specification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .tensors import leaf

Tensor = Any
Ends = list[tuple[int, int]]  # for each spatial axis: what is added before and after it

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def conv(
    X: Tensor,
    W: Tensor,
    B: Tensor | None = None,
    *,
    rank: int | None = None,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    spatial = len(kernel_shape or strides or dilations or ()) or (rank - 2 if rank else 0)
    if not spatial or auto_pad.startswith("SAME"):
        return _conv(X, W, B, auto_pad, dilations, group, pads, strides)
    stride, dilation = list(strides or [1] * spatial), list(dilations or [1] * spatial)
    ends = _pairs(pads if auto_pad == "NOTSET" else None, spatial)
    if any(before != after for before, after in ends):
        X, ends = F.pad(X, _flat(ends)), [(0, 0)] * spatial
    return _CONV[spatial](X, W, B, stride, [before for before, _ in ends], dilation, group)


@leaf
def _conv(X: Tensor, W: Tensor, B: Any, auto_pad: str, dilations: Any, group: int, pads: Any, strides: Any) -> Tensor:
    spatial = X.dim() - 2
    stride, dilation = list(strides or [1] * spatial), list(dilations or [1] * spatial)
    ends = _ends(X.shape[2:], W.shape[2:], stride, dilation, auto_pad, pads)
    return _CONV[spatial](F.pad(X, _flat(ends)), W, B, stride, 0, dilation, group)


def _pairs(pads: Sequence[int] | None, spatial: int) -> Ends:
    return [(pads[i], pads[i + spatial]) for i in range(spatial)] if pads else [(0, 0)] * spatial


def _flat(ends: Ends) -> list[int]:
    """As `torch.nn.functional.pad` wants it: last axis first."""
    return [amount for pair in reversed(ends) for amount in pair]


def _ends(size: Any, kernel: Any, stride: Any, dilation: Any, auto_pad: str, pads: Sequence[int] | None) -> Ends:
    if not auto_pad.startswith("SAME"):
        return _pairs(pads if auto_pad == "NOTSET" else None, len(size))
    ends = []
    for length, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-length // s) - 1) * s + (k - 1) * d + 1 - length, 0)
        small = total // 2
        ends.append((small, total - small) if auto_pad == "SAME_UPPER" else (total - small, small))
    return ends


@leaf
def conv_transpose(
    X: Tensor,
    W: Tensor,
    B: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """The full transposed convolution, cropped by the pads; output padding extends it by zeros before the bias."""
    spatial = X.dim() - 2
    stride, dilation = list(strides or [1] * spatial), list(dilations or [1] * spatial)
    extra = list(output_padding or [0] * spatial)
    ends = _pairs(pads if auto_pad == "NOTSET" else None, spatial)
    if output_shape or auto_pad.startswith("SAME"):
        ends = []
        for i, length in enumerate(X.shape[2:]):
            wanted = output_shape[i - spatial] if output_shape else length * stride[i]
            total = (length - 1) * stride[i] + extra[i] + (W.shape[i + 2] - 1) * dilation[i] + 1 - wanted
            small = total // 2
            ends.append((total - small, small) if auto_pad == "SAME_LOWER" else (small, total - small))
            if not auto_pad.startswith("SAME"):
                ends[-1] = (total - small, small)
    full = _TRANSPOSED[spatial](X, W, None, stride, 0, 0, group, dilation)
    full = F.pad(full, _flat([(-before, more - after) for (before, after), more in zip(ends, extra, strict=True)]))
    return full if B is None else full + B.reshape(-1, *[1] * spatial)


# --- pooling ----------------------------------------------------------------------------------------------------------


def _windows(size: Any, kernel: Any, stride: Any, dilation: Any, ends: Ends, ceil_mode: int) -> Ends:
    """The pads with what rounding the output size up adds at the end (a window must start inside the padded input)."""
    if not ceil_mode:
        return ends
    widened = []
    for length, k, s, d, (before, after) in zip(size, kernel, stride, dilation, ends, strict=True):
        reach = (k - 1) * d + 1
        count = -(-(length + before + after - reach) // s) + 1
        if (count - 1) * s >= length + before:
            count -= 1
        widened.append((before, max((count - 1) * s + reach - length - before, after)))
    return widened


def max_pool(
    X: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    floating: bool | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Tensor:
    spatial = len(kernel_shape)
    even = pads is None or list(pads[:spatial]) == list(pads[spatial:])
    fits = pads is None or all(2 * p <= k for p, k in zip(pads, kernel_shape, strict=False))
    if floating and even and fits and not ceil_mode and not auto_pad.startswith("SAME"):
        padding = [0] * spatial if pads is None or auto_pad == "VALID" else list(pads[:spatial])
        stride, dilation = list(strides or [1] * spatial), list(dilations or [1] * spatial)
        return _MAX_POOL[spatial](X, list(kernel_shape), stride, padding, dilation)
    return _max_pool(X, kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)


@leaf
def _max_pool(
    X: Tensor, kernel_shape: Any, auto_pad: str, ceil_mode: int, dilations: Any, pads: Any, strides: Any
) -> Tensor:
    spatial = len(kernel_shape)
    stride, dilation = list(strides or [1] * spatial), list(dilations or [1] * spatial)
    size = X.shape[2:]
    ends = _ends(size, kernel_shape, stride, dilation, auto_pad, pads)
    ends = _windows(size, kernel_shape, stride, dilation, ends, ceil_mode)
    lowest = -math.inf if X.is_floating_point() else torch.iinfo(X.dtype).min
    padded = F.pad(X, _flat(ends), value=lowest) if any(map(any, ends)) else X
    if not X.is_floating_point():  # torch pools 8-bit integers only in floating point, which holds them exactly
        return _MAX_POOL[spatial](padded.float(), list(kernel_shape), stride, 0, dilation).to(X.dtype)
    return _MAX_POOL[spatial](padded, list(kernel_shape), stride, 0, dilation)


def average_pool(
    X: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    spatial = len(kernel_shape)
    if not any(pads or ()) and set(dilations or [1]) == {1} and not ceil_mode and not auto_pad.startswith("SAME"):
        return _AVERAGE_POOL[spatial](X, list(kernel_shape), list(strides or [1] * spatial))
    return _average_pool(X, kernel_shape, auto_pad, ceil_mode, count_include_pad, dilations, pads, strides)


@leaf
def _average_pool(
    X: Tensor,
    kernel_shape: Sequence[int],
    auto_pad: str,
    ceil_mode: int,
    count_include_pad: int,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> Tensor:
    """Window sums over window counts; what only the rounding up adds is never counted."""
    spatial = len(kernel_shape)
    stride, dilation = list(strides or [1] * spatial), list(dilations or [1] * spatial)
    size = X.shape[2:]
    given = _ends(size, kernel_shape, stride, dilation, auto_pad, pads)
    ends = _windows(size, kernel_shape, stride, dilation, given, ceil_mode)
    if not any(map(any, ends)) and set(dilation) == {1}:
        return _AVERAGE_POOL[spatial](X, list(kernel_shape), stride)
    counted = torch.ones((1, 1, *size), dtype=X.dtype, device=X.device)
    if count_include_pad:
        counted = F.pad(counted, _flat(given), value=1.0)
        rest = [(0, b - a) for (_, a), (_, b) in zip(given, ends, strict=True)]
    else:
        rest = ends
    window = torch.ones((1, 1, *kernel_shape), dtype=X.dtype, device=X.device)

    def sums(x: Tensor) -> Tensor:
        planes = x.reshape(-1, 1, *x.shape[2:])
        summed = _CONV[spatial](planes, window, None, stride, 0, dilation)
        return summed.reshape(*x.shape[:2], *summed.shape[2:])

    return sums(F.pad(X, _flat(ends))) / sums(F.pad(counted, _flat(rest)))


@leaf
def lp_pool(X: Tensor, *, kernel_shape: Sequence[int], p: int = 2, **window: Any) -> Tensor:
    sums = average_pool(X.abs() ** p, kernel_shape=kernel_shape, count_include_pad=1, **window)
    return (sums * math.prod(kernel_shape)) ** (1 / p)


def global_average_pool(X: Tensor, *, rank: int | None = None) -> Tensor:
    return _global_average(X) if rank is None else torch.mean(X, list(range(2, rank)), keepdim=True)


def global_max_pool(X: Tensor, *, rank: int | None = None) -> Tensor:
    return _global_maximum(X) if rank is None else torch.amax(X, list(range(2, rank)), keepdim=True)


@leaf
def _global_average(x: Tensor) -> Tensor:
    return x.mean(list(range(2, x.dim())), keepdim=True)


@leaf
def _global_maximum(x: Tensor) -> Tensor:
    return x.amax(list(range(2, x.dim())), keepdim=True)

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


@leaf
def max_pool(
    X: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
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


@leaf
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


@leaf
def global_average_pool(X: Tensor) -> Tensor:
    return X.mean(tuple(range(2, X.dim())), keepdim=True)


@leaf
def global_max_pool(X: Tensor) -> Tensor:
    return X.amax(tuple(range(2, X.dim())), keepdim=True)


# --- normalisation ----------------------------------------------------------------------------------------------------


def batch_normalization(
    X: Tensor,
    scale: Tensor,
    B: Tensor,
    input_mean: Tensor,
    input_var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,
) -> Tensor:
    """With the stored statistics: a captured graph is an inference graph."""
    if training_mode:
        raise ValueError("it is in training mode")
    return F.batch_norm(X, input_mean, input_var, scale, B, False, 1 - momentum, epsilon)


def instance_normalization(input: Tensor, scale: Tensor, B: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(input, None, None, scale, B, True, 0.1, epsilon)


def layer_normalization(
    X: Tensor,
    Scale: Tensor,
    B: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    outputs: int = 1,
    stash_type: int = 1,
) -> Any:
    y = _layer_norm(X, Scale, B, axis, epsilon)
    if outputs == 1:
        return y
    moments = _moments(X, axis, epsilon)
    return y, moments[0], moments[1]


@leaf
def _moments(x: Tensor, axis: int, epsilon: float) -> tuple[Tensor, Tensor]:
    dims = list(range(axis % x.dim(), x.dim()))
    return x.mean(dims, keepdim=True), torch.rsqrt(x.var(dims, correction=0, keepdim=True) + epsilon)


@leaf
def _layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None, axis: int, epsilon: float) -> Tensor:
    shape = x.shape[axis % x.dim() :]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    y = F.layer_norm(x, shape, None, None, epsilon) * scale
    return y if bias is None else y + bias


@leaf
def rms_normalization(
    X: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    return F.rms_norm(X, X.shape[axis % X.dim() :], None, epsilon) * scale


@leaf
def group_normalization(
    X: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Before opset 21 scale and bias hold one number for each group, since then one for each channel."""
    if scale.numel() == X.shape[1]:
        return F.group_norm(X, num_groups, scale, bias, epsilon)
    repeat = X.shape[1] // num_groups
    return F.group_norm(X, num_groups, scale.repeat_interleave(repeat), bias.repeat_interleave(repeat), epsilon)


@leaf
def lp_normalization(input: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    norm = torch.linalg.vector_norm(input, p, axis, keepdim=True)
    return input / torch.where(norm == 0, torch.ones_like(norm), norm)


@leaf
def mean_variance_normalization(X: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    centred = X - X.mean(tuple(axes), keepdim=True)
    return centred / (centred.square().mean(tuple(axes), keepdim=True).sqrt() + 1e-9)


def lrn(X: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    return F.local_response_norm(X, size, alpha, beta, bias)

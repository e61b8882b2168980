"""ONNX normalisation in torch; arguments are named as in the ONNX specification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .tensors import leaf

Tensor = Any


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
    scale_shape: list[int] | None = None,
    stash_type: int = 1,
) -> Any:
    if scale_shape and axis == -len(scale_shape):
        y = F.layer_norm(X, scale_shape, Scale, B, epsilon)
    else:
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

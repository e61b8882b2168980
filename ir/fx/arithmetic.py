"""ONNX element-wise, reducing and matrix operators in torch; arguments are named as in the ONNX specification."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from .tensors import integers, leaf

Tensor = Any

# --- element by element -----------------------------------------------------------------------------------------------


def div(A: Tensor, B: Tensor, *, floating: bool | None = None) -> Tensor:
    return torch.div(A, B) if floating else _divide(A, B)


@leaf
def _divide(a: Tensor, b: Tensor) -> Tensor:
    """ONNX divides integers towards zero."""
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def power(X: Tensor, Y: Any, *, floating: bool | None = None) -> Tensor:
    """The result has the type of the base; an exponent known when the graph is built becomes a Python number."""
    if isinstance(Y, (int, float)) and floating:
        return torch.pow(X, int(Y) if float(Y).is_integer() else Y)
    return _power(X, Y)


@leaf
def _power(base: Tensor, exponent: Any) -> Tensor:
    return torch.pow(base, exponent).to(base.dtype)


@leaf
def mod(A: Tensor, B: Tensor, *, fmod: int = 0) -> Tensor:
    return torch.fmod(A, B) if fmod else torch.remainder(A, B)


def _variadic(operation: Callable[[Tensor, Tensor], Tensor], *tensors: Tensor) -> Tensor:
    return functools.reduce(operation, tensors)


def maximum(*data: Tensor) -> Tensor:
    return _variadic(torch.maximum, *data)


def minimum(*data: Tensor) -> Tensor:
    return _variadic(torch.minimum, *data)


def total(*data: Tensor) -> Tensor:
    return _variadic(torch.add, *data)


def mean(*data: Tensor) -> Tensor:
    return _variadic(torch.add, *data) / len(data)


@leaf
def bit_shift(X: Tensor, Y: Tensor, *, direction: str) -> Tensor:
    wide = X.to(torch.int64), Y.to(torch.int64)
    return (wide[0] << wide[1] if direction == "LEFT" else wide[0] >> wide[1]).to(X.dtype)


def is_inf(X: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    if detect_negative and detect_positive:
        return torch.isinf(X)
    return torch.isposinf(X) if detect_positive else torch.isneginf(X)


# --- activations ------------------------------------------------------------------------------------------------------


def clip(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    if min is None and max is None:
        return input
    if isinstance(min, float) and isinstance(max, float) and min <= max:
        return F.hardtanh(input, min, max)  # the gradient of clamp takes five passes over memory, this one's takes one
    if min is None or max is None or isinstance(min, (int, float)) == isinstance(max, (int, float)):
        return torch.clamp(input, min, max)
    return torch.clamp(torch.clamp(input, min=min), max=max)


def leaky_relu(X: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(X, alpha)


def p_relu(X: Tensor, slope: Tensor) -> Tensor:
    return torch.where(torch.lt(X, 0), X * slope, X)


def elu(X: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(X, alpha)


def celu(X: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(X, alpha)


def selu(X: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    return gamma * (F.relu(X) + alpha * (torch.exp(torch.clamp(X, max=0)) - 1))


def gelu(X: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(X, approximate=approximate)


def hard_sigmoid(X: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(X * alpha + beta, 0, 1)


def swish(X: Tensor, *, alpha: float = 1.0) -> Tensor:
    return X * torch.sigmoid(X * alpha)


def thresholded_relu(X: Tensor, *, alpha: float = 1.0) -> Tensor:
    return torch.where(torch.gt(X, alpha), X, torch.zeros_like(X))


def shrink(input: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    middle = torch.zeros_like(input)
    return torch.where(torch.lt(input, -lambd), input + bias, torch.where(torch.gt(input, lambd), input - bias, middle))


def softmax(input: Tensor, *, axis: int | None = None, opset: int = 13) -> Tensor:
    return _normalized("softmax", input, axis, opset)


def log_softmax(input: Tensor, *, axis: int | None = None, opset: int = 13) -> Tensor:
    return _normalized("log_softmax", input, axis, opset)


def _normalized(function: str, x: Tensor, axis: int | None, opset: int) -> Tensor:
    if opset >= 13 or axis == -1:
        return getattr(torch, function)(x, -1 if axis is None else axis)
    return _flat_normalized(function, x, 1 if axis is None else axis)


@leaf
def _flat_normalized(function: str, x: Tensor, axis: int) -> Tensor:
    """Before opset 13 all axes from `axis` on are taken together."""
    return getattr(torch, function)(x.flatten(axis % x.dim()), -1).reshape(x.shape)


def dropout(
    data: Tensor, ratio: Any = None, training_mode: Any = None, *, seed: int | None = None
) -> tuple[Tensor, Tensor]:
    """The identity: a captured graph is an inference graph."""
    if training_mode is not None and training_mode is not False:
        raise ValueError("it may be in training mode")
    return data, torch.ones_like(data, dtype=torch.bool)


# --- reductions -------------------------------------------------------------------------------------------------------


def reduction(kernel: Callable[[Tensor, Any, bool], Tensor]) -> Callable[..., Tensor]:
    """An ONNX `Reduce…` operator from a torch one: axes by attribute or input, none of them meaning all."""

    def reduce(data: Tensor, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
        dims = None if axes is None else integers(axes)
        if not dims and noop_with_empty_axes:
            return data
        return kernel(data, dims or None, bool(keepdims))

    return reduce


def sum_square(x: Tensor, dims: Any, keep: bool) -> Tensor:
    return torch.sum(torch.square(x), dims, keepdim=keep)


def l1(x: Tensor, dims: Any, keep: bool) -> Tensor:
    return torch.sum(torch.abs(x), dims, keepdim=keep)


def l2(x: Tensor, dims: Any, keep: bool) -> Tensor:
    return torch.sqrt(sum_square(x, dims, keep))


def log_sum(x: Tensor, dims: Any, keep: bool) -> Tensor:
    return torch.log(torch.sum(x, dims, keepdim=keep))


@leaf
def log_sum_exp(x: Tensor, dims: Any, keep: bool) -> Tensor:
    return torch.logsumexp(x, list(range(x.dim())) if dims is None else dims, keep)


@leaf
def product(x: Tensor, dims: Any, keep: bool) -> Tensor:
    for axis in sorted((d % x.dim() for d in dims or range(x.dim())), reverse=True):
        x = torch.prod(x, axis, keepdim=keep)
    return x


def summed(x: Tensor, dims: Any, keep: bool) -> Tensor:
    return torch.sum(x, dims, keepdim=keep)


def averaged(x: Tensor, dims: Any, keep: bool) -> Tensor:
    return torch.mean(x, dims, keepdim=keep)


def largest(x: Tensor, dims: Any, keep: bool) -> Tensor:
    return torch.amax(x, dims or (), keepdim=keep)


def smallest(x: Tensor, dims: Any, keep: bool) -> Tensor:
    return torch.amin(x, dims or (), keepdim=keep)


@leaf
def cum_sum(x: Tensor, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    dim = integers(axis)[0]
    flipped = torch.flip(x, (dim,)) if reverse else x
    result = torch.cumsum(flipped, dim).to(x.dtype)
    result = result - flipped if exclusive else result
    return torch.flip(result, (dim,)) if reverse else result


# --- matrices ---------------------------------------------------------------------------------------------------------


def gemm(
    A: Tensor,
    B: Tensor,
    C: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    bias_rank: int | None = None,
) -> Tensor:
    a = torch.t(A) if transA else A
    if alpha == 1 and beta == 1 and transB and (C is None or bias_rank == 1):
        return F.linear(a, B, C)
    y = torch.matmul(a, torch.t(B) if transB else B)
    y = y if alpha == 1 else y * alpha
    if C is None or beta == 0:
        return y
    return y + (C if beta == 1 else C * beta)


def einsum(*inputs: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *inputs)

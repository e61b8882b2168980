"""ONNX quantization operators in torch with straight-through gradients.

A quantized value is carried as floating-point numbers that are integers, so that gradients pass through rounding;
only what leaves the graph is cast to the integer type.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from ..quantization import integer_range
from .tensors import leaf

Tensor = Any


def _straight_through(rounded: Tensor, x: Tensor) -> Tensor:
    return (rounded - x).detach() + x if x.requires_grad else rounded


def along(parameter: Tensor, x: Tensor, axis: int, block_size: int) -> Tensor:
    """The scale or zero point in a shape that broadcasts: per tensor, per slice of `axis`, or per block of it."""
    if parameter.dim() == 0 or parameter.numel() == 1:
        return parameter.reshape([1] * x.dim())
    if block_size:
        return parameter.repeat_interleave(block_size, axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.dim()
    shape[axis] = -1
    return parameter.reshape(shape)


@leaf
def quantize_linear(
    x: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    levels: tuple[int, int] = (0, 255),
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    """`clip(rint(x / scale) + zero_point)`, half to even; the gradient is 1 inside the range and 0 outside."""
    scale = along(y_scale, x, axis, block_size).to(x.dtype)
    ratio = x / scale
    q = _straight_through(torch.round(ratio), ratio)
    if y_zero_point is not None:
        q = q + along(y_zero_point, x, axis, block_size).to(x.dtype)
    return torch.clamp(q, *levels)


@leaf
def dequantize_linear(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """`(x − zero_point) · scale`."""
    scale = along(x_scale, x, axis, block_size)
    centred = x if x.is_floating_point() else x.to(torch.float64 if x.dtype == torch.int32 else scale.dtype)
    if x_zero_point is not None:
        centred = centred - along(x_zero_point, x, axis, block_size).to(centred.dtype)
    return centred.to(scale.dtype) * scale


@leaf
def dynamic_quantize_linear(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = torch.clamp(x.min(), max=0), torch.clamp(x.max(), min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.clamp(torch.round(-low / scale), 0, 255).detach()
    ratio = x / scale
    return torch.clamp(_straight_through(torch.round(ratio), ratio) + zero, 0, 255), scale, zero.to(torch.uint8)


@leaf
def mat_mul_integer(A: Tensor, B: Tensor, a_zero_point: Any = None, b_zero_point: Any = None) -> Tensor:
    """Products and sums in float64, which holds every int32 exactly."""
    a = A.double() if a_zero_point is None else A.double() - _rows(a_zero_point)
    b = B.double() if b_zero_point is None else B.double() - b_zero_point.double()
    return torch.matmul(a, b)


def _rows(zero_point: Tensor) -> Tensor:
    zero = zero_point.double()
    return zero.unsqueeze(-1) if zero.dim() == 1 and zero.numel() > 1 else zero


@leaf
def conv_integer(x: Tensor, w: Tensor, x_zero_point: Any = None, w_zero_point: Any = None, **attributes: Any) -> Tensor:
    """The convolution of the centred integers, in float64; padding adds the zero point, hence 0."""
    from .spatial import conv

    a = x.double() if x_zero_point is None else x.double() - x_zero_point.double()
    b = w.double()
    if w_zero_point is not None:
        b = b - w_zero_point.double().reshape(-1, *[1] * (w.dim() - 1) if w_zero_point.numel() > 1 else ())
    return conv(a, b, None, rank=x.dim(), **attributes)


def levels_of(dtype: ir.DataType | None) -> tuple[int, int]:
    """Lowest and highest level that `QuantizeLinear` clips to; uint8 where nothing says otherwise."""
    return integer_range(dtype or ir.DataType.UINT8)

"""Between ONNX and torch: element types, arrays and tensors, and functions that FX records as one call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

__all__ = ["Array", "array_of", "integers", "leaf", "tensor_of", "torch_dtype"]

Array = npt.NDArray[np.generic]

# 4-bit integers have no torch type; they are held in the 8-bit one
_DTYPES: dict[ir.DataType, Any] = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.UINT16: torch.uint16,
    ir.DataType.UINT32: torch.uint32,
    ir.DataType.UINT64: torch.uint64,
    ir.DataType.BOOL: torch.bool,
    ir.DataType.COMPLEX64: torch.complex64,
    ir.DataType.COMPLEX128: torch.complex128,
    ir.DataType.INT4: torch.int8,
    ir.DataType.UINT4: torch.uint8,
}


def torch_dtype(dtype: ir.DataType | int) -> Any:
    """The torch type that holds an ONNX element type; KeyError where there is none (strings, 8-bit floats)."""
    return _DTYPES[ir.DataType(dtype)]


def tensor_of(tensor: ir.TensorProtocol) -> Any:
    """A torch tensor with a copy of the contents."""
    array = tensor.numpy()
    if tensor.dtype == ir.DataType.BFLOAT16:
        return torch.from_numpy(np.array(array.view(np.int16), order="C")).view(torch.bfloat16)
    if tensor.dtype in (ir.DataType.INT4, ir.DataType.UINT4):
        array = array.astype(np.int8 if tensor.dtype == ir.DataType.INT4 else np.uint8)
    torch_dtype(tensor.dtype)
    return torch.from_numpy(np.array(array, order="C"))


def array_of(tensor: Any) -> Array:
    """A numpy copy of a tensor's contents, bfloat16 included."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return np.array(tensor.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
    return np.array(tensor.numpy())


def integers(numbers: Any) -> list[int]:
    """A list of integers from what was constant in the graph, or from the tensor that is only known at run time."""
    if isinstance(numbers, torch.Tensor):
        numbers = numbers.tolist()
    return [numbers] if isinstance(numbers, int) else [int(n) for n in numbers]


def leaf(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: while an FX graph is built the call is recorded as one node, because it looks at run-time shapes."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        found: list[torch.fx.Proxy] = []
        torch.fx.node.map_aggregate((args, kwargs), lambda a: found.append(a) if isinstance(a, torch.fx.Proxy) else a)
        if found:
            return found[0].tracer.create_proxy("call_function", call, args, kwargs)
        return function(*args, **kwargs)

    return call

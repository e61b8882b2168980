"""Constants and encodings of QuantizeLinear and DequantizeLinear nodes, found through the nodes that make them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..graph import attribute, constant
from ..quantization import Encoding
from .steps import Operand, Refusal

__all__ = ["LEVELS", "encoding_of", "integer_constant", "is_standard", "known", "levels"]

Array = npt.NDArray[np.generic]

LEVELS = frozenset({"INT4", "UINT4", "INT8", "UINT8", "INT16", "UINT16"})
_BIAS = frozenset({"INT32"})
_CONSTANT_FORMS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


def is_standard(node: ir.Node | None, *ops: str) -> bool:
    """The node is one of these operators of the standard domain."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in ops


def levels(array: Array) -> Array:
    """Integers in a type numpy computes with (4-bit types are widened to 8)."""
    narrow = {"int4": np.int8, "uint4": np.uint8}.get(array.dtype.name)
    return array if narrow is None else array.astype(narrow)


def encoding_of(node: ir.Node, rank: int | None, dtype: ir.DataType | None = None) -> Encoding:
    """The encoding a QuantizeLinear or DequantizeLinear states; `rank` of its operand resolves a negative axis.

    dtype: the type of the integers, used where there is no zero point to tell it.
    """
    given = node.inputs[2] if len(node.inputs) > 2 else None
    scale, zero = known(node.inputs[1]), known(given)
    if scale is None or (given is not None and zero is None):
        raise Refusal("scale or zero point is not constant")
    if scale.dtype != np.float32:
        raise Refusal(f"scale is {scale.dtype.name}, not float32")
    if attribute(node, "block_size", 0):
        raise Refusal("blocked quantization")
    if zero is not None or dtype is None:
        dtype = _level_type(node, zero)
    if dtype.name not in LEVELS | _BIAS:
        raise Refusal(f"levels of type {dtype.name}")
    steps: npt.NDArray[np.float32] = scale.astype(np.float32)
    shape = () if steps.size == 1 else steps.shape
    zeros = np.zeros(shape, np.int32) if zero is None else levels(zero).astype(np.int32)
    if zeros.size not in (1, steps.size) or not (np.isfinite(steps) & (steps > np.float32(0))).all():
        raise Refusal("scale is not positive and finite, or its shape differs from the zero point's")
    axis: int | None = None
    if shape:
        axis = int(_number(attribute(node, "axis", 1)))
        if axis < 0:
            if rank is None:
                raise Refusal("negative quantization axis of a value whose rank is unknown")
            axis += rank
    return Encoding(steps.reshape(shape), np.broadcast_to(zeros.reshape(-1), steps.size).reshape(shape), dtype, axis)


def _level_type(node: ir.Node, zero: Array | None) -> ir.DataType:
    if zero is not None:
        return ir.DataType.from_numpy(zero.dtype)
    if node.op_type == "QuantizeLinear":
        return ir.DataType(int(_number(attribute(node, "output_dtype", 0))) or ir.DataType.UINT8)
    source = node.inputs[0]
    array = known(source)
    if array is not None:
        return ir.DataType.from_numpy(array.dtype)
    if source is None or source.dtype is None:
        raise Refusal("the type of the quantized value is unknown")
    return source.dtype


def _number(value: Any) -> int:
    return int(value)


def known(value: ir.Value | None) -> Array | None:
    """The contents of a value that does not depend on the input: initialisers, Constant nodes, folded Q/DQ of them."""
    if value is None:
        return None
    array = constant(value)
    if array is not None:
        return array
    node = value.producer()
    if is_standard(node, "Constant"):
        assert node is not None
        return _constant_node(node)
    if is_standard(node, "DequantizeLinear", "QuantizeLinear", "Transpose"):
        operand = integer_constant(value)
        if operand is not None and operand.constant is not None and operand.encoding is not None:
            made_by_q = is_standard(node, "QuantizeLinear")
            return operand.constant if made_by_q else operand.encoding.dequantize(operand.constant)
    return None


def _constant_node(node: ir.Node) -> Array | None:
    for name, dtype in _CONSTANT_FORMS.items():
        if name in node.attributes:
            return np.asarray(attribute(node, name), dtype)
    tensor: Any = attribute(node, "value")
    return None if tensor is None else np.asarray(tensor.numpy())


def integer_constant(value: ir.Value | None) -> Operand | None:
    """The integers behind a dequantized constant: DQ(W), DQ(Q(w)), Transpose(DQ(W)); None when it is not one."""
    node = None if value is None else value.producer()
    if value is None or node is None:
        return None
    if is_standard(node, "DequantizeLinear", "QuantizeLinear"):
        array = known(node.inputs[0])
        if array is None:
            return None
        try:
            encoding = encoding_of(node, array.ndim)
        except Refusal:
            return None
        if node.op_type == "QuantizeLinear":
            return Operand(value.name or "", encoding, encoding.quantize(array))
        return Operand(node.inputs[0].name or "", encoding, levels(array))  # type: ignore[union-attr]
    if is_standard(node, "Transpose"):
        inner = integer_constant(node.inputs[0])
        if inner is None or inner.constant is None or inner.encoding is None:
            return None
        perm: Any = attribute(node, "perm") or reversed(range(inner.constant.ndim))
        return _transposed(inner.encoding, inner.constant, value, [int(p) for p in perm])
    return None


def _transposed(old: Encoding, array: Array, value: ir.Value, perm: list[int]) -> Operand:
    axis = None if old.axis is None else perm.index(old.axis)
    return Operand(value.name or "", Encoding(old.scale, old.zero_point, old.dtype, axis), array.transpose(perm))

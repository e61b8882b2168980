"""a·op(x) + b per channel, absorbed into the weights of op: the arithmetic behind BatchNorm and bias folding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.graph import Array, attribute, is_constant
from ...ir.shapes import Shapes
from .edit import Editor

__all__ = ["Absorbed", "absorb", "channel_axis", "per_channel", "scale_transposed_kernel"]

Vector = npt.NDArray[np.float64]

# operator -> (index of the factor it multiplies by, index of its shift); the factor's layout is in _scaled
_SLOTS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (1, 2),  # a matrix product with a shift is a Gemm
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
}
_LAST_AXIS = {"Gemm", "MatMul", "LayerNormalization"}


@dataclass(frozen=True)
class Absorbed:
    """The operation that equals a·op(x) + b: operator, inputs and attributes."""

    op_type: str
    inputs: list[ir.Value | None]
    attributes: dict[str, Any]


def channel_axis(node: ir.Node, rank: int) -> int | None:
    """The axis of the output along which the operator has one factor per index; None for other operators."""
    if node.op_type not in _SLOTS or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _LAST_AXIS:
        return rank - 1
    return 1 if rank >= 2 else None


def per_channel(array: Array, rank: int, axis: int, channels: int) -> Vector | None:
    """A constant as one number per channel, when it broadcasts along every other axis of a rank-`rank` value."""
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(size != 1 for i, size in enumerate(shape) if i != axis) or shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,))


def absorb(node: ir.Node, a: Vector | None, b: Vector | None, shapes: Shapes, edit: Editor) -> Absorbed | str:
    """The operation equal to a·node + b (per output channel), or the reason why there is none.

    Constants are computed in float64 and rounded once to the type of the weights; a None is 1 (for a) or 0 (for b).
    """
    factor_at, shift_at = _SLOTS[node.op_type]
    factor = node.inputs[factor_at]
    shift = node.inputs[shift_at] if shift_at < len(node.inputs) else None
    if not is_constant(factor) or factor is None:
        return "its weights are not constant"
    if shift is not None and not is_constant(shift):
        return "its bias is not constant"
    if factor.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        return "its weights are not floating point"
    for numbers in (a, b):
        if numbers is not None and not np.all(np.isfinite(numbers)):
            return "the constant is not finite"
    op_type = node.op_type
    if op_type == "MatMul" and b is not None:
        if shapes.rank(node.inputs[0]) != 2 or shapes.rank(factor) != 2 or shapes.version < 7:
            return "it has no bias, and is no Gemm because its operands are not matrices"
        op_type = "Gemm"
    attributes = dict(node.attributes)
    channels = len(a) if a is not None else len(b) if b is not None else 0
    old = np.zeros(channels) if shift is None else _bias(node, shift, channels)
    if old is None:
        return "its bias is not one number per output channel"
    inputs: list[ir.Value | None] = list(node.inputs)
    if a is not None:
        compute = _scaled(node, factor, a)
        shape = [int(d) for d in factor.const_value.shape]  # type: ignore[union-attr, arg-type]
        inputs[factor_at] = edit.computed(f"{factor.name}", factor.dtype, shape, compute)
    if b is not None or (a is not None and shift is not None):
        new = old * (1.0 if a is None else a) + (0.0 if b is None else b)
        inputs += [None] * (shift_at + 1 - len(inputs))
        stem = shift.name if shift is not None else f"{factor.name}.bias"
        inputs[shift_at] = edit.constant(str(stem), new.astype(factor.dtype.numpy()))
        if node.op_type == "Gemm":
            attributes.pop("beta", None)  # beta·C is in the new bias
    return Absorbed(op_type, inputs, attributes)


def _bias(node: ir.Node, shift: ir.Value, channels: int) -> Vector | None:
    assert shift.const_value is not None
    if shift.const_value.size not in (1, channels):
        return None
    array = shift.const_value.numpy().astype(np.float64)
    vector = per_channel(array, 2, 1, channels) if node.op_type == "Gemm" else array.reshape(-1)
    beta: Any = attribute(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
    return None if vector is None or len(vector) != channels else vector * beta


def _scaled(node: ir.Node, factor: ir.Value, a: Vector) -> Callable[[], Array]:
    tensor = factor.const_value
    assert tensor is not None
    group: Any = attribute(node, "group", 1)
    trans_b = bool(attribute(node, "transB", 0))
    op_type, dtype = node.op_type, tensor.dtype.numpy()

    def compute() -> Array:
        w = tensor.numpy()
        if op_type == "ConvTranspose":
            return scale_transposed_kernel(w, a, group).astype(dtype)
        rows = op_type == "Conv" or (op_type == "Gemm" and trans_b)
        shaped = a.reshape((-1,) + (1,) * (w.ndim - 1)) if rows else a
        return _times(w, shaped).astype(dtype)

    return compute


def _times(w: Array, a: Vector) -> Array:
    """w·a rounded once: float64 products for narrow types, without a float64 copy of a large float32 tensor."""
    if w.nbytes <= 1 << 24 or w.dtype != np.float32:
        product: Array = w.astype(np.float64) * a
        return product
    result = np.empty_like(w)
    np.multiply(w, a, out=result, casting="same_kind")
    return result


def scale_transposed_kernel(w: Array, a: Vector, group: int) -> Array:
    """A ConvTranspose kernel [C, M/group, …] with output channel m of each group multiplied by a[m]."""
    channels, per_group = w.shape[:2]
    grouped = w.reshape(group, channels // group, per_group, *w.shape[2:])
    scaled = _times(grouped, a.reshape(group, 1, per_group, *(1,) * (w.ndim - 2)))
    return scaled.reshape(w.shape)

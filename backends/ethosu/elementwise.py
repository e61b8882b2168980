"""Sums, products, functions of one variable, and changes of encoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ...ir.graph import attribute
from ...ir.integer import IntegerOp
from ...ir.integer.encodings import known
from ...ir.integer.site import activation_bounds
from ...targets.tflite import Tensor
from . import affine
from .activation import clip, emit_clipped
from .site import Axes, NoForm, Site, row_major

__all__ = ["ACTIVATIONS", "add", "aligned", "dequantize", "mul", "quantize", "requantize", "softmax", "unary"]

# operator -> TFLite's builtin and its options, for int8 and for float32
ACTIVATIONS: Mapping[str, tuple[str, Callable[[IntegerOp], dict[str, float | bool]]]] = {
    "Abs": ("ABS", lambda _: {}),
    "Elu": ("ELU", lambda _: {}),
    "Exp": ("EXP", lambda _: {}),
    "Gelu": ("GELU", lambda op: {"approximate": attribute(op.node, "approximate", "none") == "tanh"}),
    "HardSwish": ("HARD_SWISH", lambda _: {}),
    "LeakyRelu": ("LEAKY_RELU", lambda op: {"alpha": float(attribute(op.node, "alpha", 0.01))}),  # type: ignore[arg-type]
    "Log": ("LOG", lambda _: {}),
    "Neg": ("NEG", lambda _: {}),
    "Sigmoid": ("LOGISTIC", lambda _: {}),
    "Tanh": ("TANH", lambda _: {}),
}
# functions with kernels for 16 bits that are right to a level or two; the others interpolate a table, or are missing
_WIDE = frozenset({"Abs", "LeakyRelu", "Sigmoid", "Tanh"})
# (builtin, type) -> the only encoding its kernel can write
_FIXED: Mapping[tuple[str, str], tuple[float, int]] = {
    ("LOGISTIC", "int8"): (1 / 256, -128),
    ("LOGISTIC", "int16"): (1 / 32768, 0),
    ("SOFTMAX", "int8"): (1 / 256, -128),
    ("SOFTMAX", "int16"): (1 / 32768, 0),
    ("TANH", "int8"): (1 / 128, 0),
    ("TANH", "int16"): (1 / 32768, 0),
}


def aligned(site: Site) -> tuple[list[Tensor], Axes]:
    """The operands of a broadcast with equal ranks, in one axis order: that of the largest operand."""
    rank = max(len(place.axes) for place in site.operands)
    largest = max(site.operands, key=lambda p: (len(p.axes) == rank, int(np.prod(p.tensor.shape))))
    found = []
    for place in site.operands:
        short = rank - len(place.axes)
        if not short:
            found.append(site.arranged(place, largest.axes))
            continue
        rows = site.arranged(place, row_major(len(place.axes)))
        shape = (1,) * short + rows.shape
        shape = tuple(shape[a] for a in largest.axes)
        if sum(n > 1 for n in shape) > 1 and largest.axes != row_major(rank):
            raise NoForm("operands of different ranks in different axis orders")
        if rows.data is None:
            found.append(site.reshaped(rows, shape))
        else:
            found.append(site.tensor(shape, rows, name=rows.name))
            found[-1].data = rows.data.reshape(shape)
    return found, largest.axes


def add(site: Site, op: IntegerOp) -> None:
    """add  ⇒  ADD or SUB."""
    assert op.multiplier is not None and op.encoding is not None
    negative = [bool(m < 0) for m in op.multiplier]
    if op.addend is not None:
        affine.plus_constant(site, op)
        return
    if negative[0]:
        raise NoForm("the negative of a sum")
    (a, b), axes = aligned(site)
    shape = np.broadcast_shapes(a.shape, b.shape)
    site.give(emit_clipped(site, op, "SUB" if negative[1] else "ADD", [a, b], shape), axes)


def mul(site: Site, op: IntegerOp) -> None:
    """mul  ⇒  MUL."""
    (a, b), axes = aligned(site)
    site.give(emit_clipped(site, op, "MUL", [a, b], np.broadcast_shapes(a.shape, b.shape)), axes)


def requantize(site: Site, op: IntegerOp) -> None:
    """requantize  ⇒  QUANTIZE from integers to integers; with a constant factor in it, MUL."""
    assert op.multiplier is not None and op.encoding is not None and op.inputs[0].encoding is not None
    place = site.operands[0]
    factor = op.multiplier.astype(np.float64) * float(op.encoding.scale) / float(op.inputs[0].encoding.scale)
    if np.allclose(factor, 1.0, rtol=1e-5, atol=0):
        result = site.tensor(place.tensor.shape, encoding=op.encoding, name=op.outputs[0])
        site.add("QUANTIZE", [place.tensor], [result])
        site.give(clip(site, op, result), place.axes)
        return
    if factor.size > 1:
        affine.by_channel(site, op, factor)
    else:
        affine.by_number(site, op, float(factor.reshape(())))


def quantize(site: Site, op: IntegerOp) -> None:
    """quantize  ⇒  QUANTIZE from float32."""
    place = site.operands[0]
    result = site.tensor(place.tensor.shape, encoding=op.encoding, name=op.outputs[0])
    site.add("QUANTIZE", [place.tensor], [result])
    site.give(result, place.axes)


def dequantize(site: Site, tensor: Tensor) -> Tensor:
    """The real numbers of an integer tensor."""
    result = site.tensor(tensor.shape, name=f"{tensor.name}_float")
    site.add("DEQUANTIZE", [tensor], [result])
    return result


def unary(site: Site, op: IntegerOp) -> None:
    """unary  ⇒  the builtin of the same function; LOGISTIC and TANH write their one encoding, QUANTIZE goes on."""
    place = site.operands[0]
    if op.node.op_type in ("Relu", "Clip"):
        _clipped(site, op)
        return
    if op.node.op_type == "Pow" and known(op.node.inputs[1]) == -0.5:
        site.give(_in_fixed_encoding(site, op, "RSQRT", place.tensor), place.axes)
        return
    wide = op.inputs[0].is_wide
    if op.node.op_type not in ACTIVATIONS or op.node.op_type == "Neg" or (wide and op.node.op_type not in _WIDE):
        raise NoForm(f"no TFLite operator computes {op.node.op_type} on int{16 if wide else 8}")
    code, options = ACTIVATIONS[op.node.op_type]
    site.give(_in_fixed_encoding(site, op, code, place.tensor, **options(op)), place.axes)


def softmax(site: Site, op: IntegerOp) -> None:
    """softmax  ⇒  SOFTMAX over the last axis, into its one encoding; QUANTIZE goes on."""
    axis = op.attributes["axis"]
    axes = (*(a for a in site.operands[0].axes if a != axis), axis)
    site.give(_in_fixed_encoding(site, op, "SOFTMAX", site.operand(0, axes), beta=1.0), axes)


def _in_fixed_encoding(site: Site, op: IntegerOp, code: str, x: Tensor, **options: float | bool) -> Tensor:
    """The result of an operator of one operand, by way of the encoding that its kernel writes where that is another."""
    result = site.tensor(x.shape, encoding=op.encoding, name=op.outputs[0])
    scale, zero = _FIXED.get((code, result.dtype), (None, 0))
    if scale is None or (result.scale == np.float32(scale) and result.zero_point == zero):
        site.add(code, [x], [result], **options)
        return result
    raw = site.tensor(x.shape, dtype=result.dtype)
    raw.scale, raw.zero_point = np.asarray(scale, np.float32), np.asarray(zero, np.int64)
    site.add(code, [x], [raw], **options)
    site.add("QUANTIZE", [raw], [result])
    return result


def _clipped(site: Site, op: IntegerOp) -> None:
    """Relu and Clip that stand alone: a change of encoding, and the ends of the table as limits."""
    assert op.encoding is not None
    place = site.operands[0]
    result = site.tensor(place.tensor.shape, encoding=op.encoding, name=op.outputs[0])
    if place.tensor.encoding == result.encoding:
        result = place.tensor
    else:
        site.add("QUANTIZE", [place.tensor], [result])
    value = op.node.inputs[0]
    ends = None if value is None else activation_bounds(op.node, value)
    if ends is None:
        raise NoForm("bounds that are not constant")
    low, high = (int(n) for n in op.encoding.quantize(np.array(ends, np.float32)))
    limited = replace(op, low=low, high=high)
    site.give(clip(site, limited, result), place.axes)

"""Convolutions and matrix products: NHWC, weights OHWI, bias in the accumulator's steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...ir.integer import IntegerOp
from ...targets.tflite import Tensor
from .activation import emit_clipped
from .plane import as_plane, give_plane, operand_plane
from .site import NoForm, Site

__all__ = [
    "bias_tensor",
    "conv",
    "dense",
    "explicit_padding",
    "matmul",
    "trailing_pads",
    "weight_tensor",
]

Array = npt.NDArray[np.generic]


def conv(site: Site, op: IntegerOp) -> None:
    """conv  ⇒  [PAD] CONV_2D, or DEPTHWISE_CONV_2D where every input channel is a group of its own."""
    op, x = as_plane(site, op), operand_plane(site)
    assert op.weight is not None
    group, kernel = op.attributes["group"], op.weight.shape[2:]
    strides, dilations = op.attributes["strides"], op.attributes["dilations"]
    pads = trailing_pads(x.shape[1:3], kernel, strides, dilations, op.attributes["pads"])
    x, padding = explicit_padding(site, x, pads, kernel, strides, dilations)
    depthwise = group > 1 and group == x.shape[3] and op.weight.shape[1] == 1
    order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    weight = weight_tensor(site, op, op.weight.transpose(order), 3 if depthwise else 0)
    if group > 1 and not depthwise and x.shape[3] % group:
        raise NoForm(f"{x.shape[3]} channels in {group} groups")
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    size = [
        (n - s) // t + 1 if padding == "VALID" else -(-n // t)
        for n, s, t in zip(x.shape[1:3], spans, strides, strict=True)
    ]
    options = {"padding": padding, "strideH": strides[0], "strideW": strides[1]}
    options |= {"dilationHFactor": dilations[0], "dilationWFactor": dilations[1]}
    if depthwise:
        options["depthMultiplier"] = op.weight.shape[0] // group
    shape = (x.shape[0], *size, op.weight.shape[0])
    code = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    give_plane(site, emit_clipped(site, op, code, [x, weight, bias_tensor(site, op, x)], shape, **options))


def trailing_pads(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> list[tuple[int, int]]:
    """(begin, end) padding of each axis that windows really reach: what ONNX pads beyond the last one is dropped."""
    found = []
    for i, (n, k, s, d) in enumerate(zip(size, kernel, strides, dilations, strict=True)):
        begin, end, span = pads[i], pads[i + len(size)], d * (k - 1) + 1
        steps = (n + begin + end - span) // s
        found.append((begin, max(steps * s + span - n - begin, 0)))
    return found


def explicit_padding(
    site: Site,
    x: Tensor,
    pads: Sequence[tuple[int, int]],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    level: float | None = None,
    counted: bool = False,
) -> tuple[Tensor, str]:
    """The operand, and "VALID" or "SAME"; padding that TFLite's SAME would place otherwise is a PAD in front.

    level: what an explicit pad holds; zero (the zero point) when None. counted: padding belongs to the window.
    """
    if not any(n for pair in pads for n in pair):
        return x, "VALID"
    same = []
    for n, k, s, d in zip(x.shape[1:3], kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        same.append((total // 2, total - total // 2))
    if list(pads) == same and not counted:
        return x, "SAME"
    shape = (x.shape[0], *(n + a + b for n, (a, b) in zip(x.shape[1:3], pads, strict=True)), x.shape[3])
    table = site.integers([(0, 0), *pads, (0, 0)])
    if level is None:
        return site.apply("PAD", [x, table], shape), "VALID"
    filling = site.constant(np.full((1,), level, x.dtype), scale=x.scale, zero=x.zero_point)
    return site.apply("PADV2", [x, table, filling], shape), "VALID"


def dense(site: Site, op: IntegerOp) -> None:
    """dense  ⇒  FULLY_CONNECTED over the last axis."""
    assert op.weight is not None
    x = site.operand(0)
    weight = weight_tensor(site, op, op.weight.T, 0)
    shape = (*x.shape[:-1], op.weight.shape[1])
    options = {"keepNumDims": len(x.shape) != 2}
    site.give(emit_clipped(site, op, "FULLY_CONNECTED", [x, weight, bias_tensor(site, op, x)], shape, **options))


def matmul(site: Site, op: IntegerOp) -> None:
    """matmul  ⇒  BATCH_MATMUL."""
    a, b = site.operand(0), site.operand(1)
    if len(a.shape) < 2 or len(a.shape) != len(b.shape):
        raise NoForm("factors of different ranks")
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    result = site.tensor(shape, encoding=op.encoding, name=op.outputs[0])
    site.add("BATCH_MATMUL", [a, b], [result], adjX=False, adjY=False)
    site.give(result)


def weight_tensor(site: Site, op: IntegerOp, arranged: Array, axis: int) -> Tensor:
    """The weights of a product; integers as symmetric int8, one scale for each output channel."""
    name = f"{op.outputs[0]}_weight"
    if op.weight_zero_point is None:
        return site.constant(np.ascontiguousarray(arranged, np.float32), name)
    zero = op.weight_zero_point
    shape = [1] * arranged.ndim
    if zero.ndim:
        shape[axis] = -1
    levels = arranged.astype(np.int32) - zero.reshape(shape)
    if levels.min(initial=0) < -128 or levels.max(initial=0) > 127:
        raise NoForm("weights whose zero point is not 0")
    return site.constant(levels.astype(np.int8), name, scale=_scales(op), axis=axis)


def _scales(op: IntegerOp) -> npt.NDArray[np.float32]:
    """s_w of each output channel, as the multiplier m = s_x · s_w / s_y states it."""
    assert op.multiplier is not None
    x = op.inputs[0].encoding
    assert x is not None
    out = 1.0 if op.encoding is None else np.float64(op.encoding.scale)
    return np.asarray(op.multiplier.astype(np.float64) * out / np.float64(x.scale), np.float32)


def bias_tensor(site: Site, op: IntegerOp, x: Tensor) -> Tensor | None:
    """The bias of a product, in steps of s_x · s_w where the product is on integers."""
    if op.bias is None:
        return None
    name = f"{op.outputs[0]}_bias"
    if op.weight_zero_point is None:
        return site.constant(np.asarray(op.bias, np.float32), name)
    assert x.scale is not None
    bias = op.bias.astype(np.int64 if x.dtype == "int16" else np.int32)
    return site.constant(bias, name, scale=_scales(op) * x.scale.reshape(()))

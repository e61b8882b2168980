"""Depthwise convolutions: one filter a channel, vectors along the channels, sums in float32 where they are exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ....ir.quantization import integer_range
from ....ir.windows import output_size
from .depthwise_dot import applies, depthwise_dot
from .depthwise_tiles import DepthwiseConfig, DepthwiseWorkload, lanes_of, schedule_rows
from .epilogue import begun
from .kernel import Kernel, Templated
from .located import Located, channels_last, inside
from .workload import config, folded_bias

__all__ = ["depthwise"]

Array = npt.NDArray[np.generic]

_EXACT = 2**24  # float32 holds every integer up to here, so a sum that stays below is exact in any order


def depthwise(kernel: Kernel) -> Located:
    """acc = Σ (x − z_x) · w + bias for each channel (times a channel multiplier); see `conv`."""
    op, te = kernel.op, kernel.te
    assert op.weight is not None and op.bias is not None and op.multiplier is not None
    n, channels, *size = kernel.operands[0].shape
    filters, _, *window = op.weight.shape
    factor = filters // channels
    attributes = op.attributes
    strides, dilations, pads = ([int(v) for v in attributes[k]] for k in ("strides", "dilations", "pads"))
    out = [output_size(size[d], window[d], strides[d], dilations[d], pads[d], pads[d + 2]) for d in (0, 1)]
    place = Located("", (n, filters, *out), kernel.result_type, channels_last(4))
    if applies(kernel):
        return depthwise_dot(kernel, size, out, place)
    biases, kind = _starts(kernel)
    staged = _staged(kernel, pads, kind)
    weight = kernel.array(np.ascontiguousarray(op.weight[:, 0].transpose(1, 2, 0)).astype(kind), "w")
    bias = kernel.array(biases.astype(kind), "bias")
    multiplier, clip = kernel.array(op.multiplier, "multiplier"), kernel.levels()
    r, s = (te.reduce_axis((0, k), name=name) for k, name in zip(window, "rs", strict=True))

    def term(b: Any, y: Any, x: Any, c: Any) -> Any:
        value = staged(b, y * strides[0] + r * dilations[0], x * strides[1] + s * dilations[1], c // factor)
        return te.sum(value * weight[r, s, c], axis=[r, s])

    acc = te.compute((n, *out, filters), term, name="acc")
    lanes = lanes_of(filters)

    def element(b: Any, y: Any, x: Any, c: Any) -> Any:
        total = acc(b, y, x, c) + bias[c] if lanes is None else acc(b, y, x, c)
        return clip(total.astype("float32") * multiplier[c])

    result = te.compute((n, *out, filters), element, name="out")
    if lanes is None:
        return kernel.finish(result, place, lambda function: function)
    width, shape = size[1] + pads[1] + pads[3], (out[0], out[1])
    pairs = [(int(v[0]), int(v[1])) for v in (window, strides, dilations)]
    threads = kernel.target.threads
    workload = DepthwiseWorkload(n, filters, shape, width, pairs[0], pairs[1], pairs[2], kind, lanes, threads)
    chosen = config(kernel, workload)
    made = Templated(result, place, workload, chosen, lambda function, tile: _schedule(function, tile, lanes), begun)
    return kernel.tiled(made)


def _starts(kernel: Kernel) -> tuple[Array, str]:
    """What sums of x·w begin at, bias − z_x·Σw of each filter, and their type.

    float32, which vector units multiply fastest, where no partial sum can leave the integers that it holds.
    """
    op, encoding = kernel.op, kernel.op.inputs[0].encoding
    assert encoding is not None and op.weight is not None
    biases = folded_bias(kernel, op.weight, kernel.zero_point())
    largest = max(abs(level) for level in integer_range(encoding.dtype))
    most = np.abs(op.weight.astype(np.int64)).sum(axis=(1, 2, 3)) * largest + np.abs(biases.astype(np.int64))
    return biases, "float32" if most.max() < _EXACT else "int32"


def _staged(kernel: Kernel, pads: list[int], kind: str) -> Any:
    """x with a border of its zero point."""
    x, tirx = kernel.operand(), kernel.tirx
    n, channels, rows, columns = x.shape
    top, left, bottom, right = pads
    border = kernel.scalar(kernel.zero_point(), kind, "border")

    def element(b: Any, h: Any, w: Any, c: Any) -> Any:
        value = x(b, c, h - top, w - left).astype("int32").astype(kind)
        conditions = inside(h, w, pads, (rows, columns))
        return tirx.if_then_else(tirx.all(*conditions), value, border) if conditions else value

    return kernel.te.compute((n, rows + top + bottom, columns + left + right, channels), element, name="staged")


def _schedule(function: Any, tile: DepthwiseConfig, lanes: int) -> Any:
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    acc, out, staged = (sch.get_sblock(name) for name in ("acc", "out", "staged"))
    schedule_rows(sch, acc, out, staged, tile, lanes)
    return sch.mod["main"]

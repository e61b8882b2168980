"""A transposed convolution as a convolution and a rearrangement of its channels into space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph import attribute, constant
from .windows import integers

__all__ = ["Subpixel", "subpixel"]

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Subpixel:
    """DepthToSpace(Conv(x, weight, bias), block) and the rows and columns [start, stop) that are kept of it.

    weight [block² · M, C, J, J], the positions within a block outermost; pads: J − 1 at every end.
    """

    weight: Array
    bias: Array | None
    block: int
    pads: int
    keep: tuple[tuple[int, int], tuple[int, int]]
    whole: bool  # nothing is cut off


def subpixel(node: ir.Node) -> Subpixel | str:
    """What a ConvTranspose is made of, or the reason why it is not.

    With q·s + r = o + p: y[o] = Σ_j x[q − j] · w[r + s·j], a convolution with ⌈K/s⌉ taps for each of the s places r.
    """
    x, weight = node.inputs[0], constant(node.inputs[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    numbers = None if bias is None else constant(bias)
    if weight is None or (bias is not None and numbers is None):
        return "its weights or its bias are not constant"
    found = [d if isinstance(d, int) else 0 for d in (() if x is None or x.shape is None else x.shape)]
    if weight.ndim != 4 or len(found) != 4 or 0 in found[2:]:
        return "it is not of two dimensions of known size"
    strides, size = integers(node, "strides", (1, 1)), weight.shape[2:]
    if strides[0] != strides[1]:
        return "its strides differ"
    if attribute(node, "group", 1) != 1 or integers(node, "dilations", (1, 1)) != (1, 1):
        return "it has groups or dilations"
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or attribute(node, "output_shape") is not None:
        return "its padding is implicit"
    stride, pads = strides[0], integers(node, "pads", (0, 0, 0, 0))
    extra = integers(node, "output_padding", (0, 0))
    taps = max(-(-k // stride) for k in size)
    keep, whole = [], True
    for axis in range(2):
        made = (found[2 + axis] + taps - 1) * stride
        stop = (found[2 + axis] - 1) * stride + size[axis] + extra[axis] - pads[2 + axis]
        if stop > made:
            return "its result goes beyond what the kernel reaches"
        keep.append((pads[axis], stop))
        whole &= (pads[axis], stop) == (0, made)
    wide = np.zeros((*weight.shape[:2], taps * stride, taps * stride), weight.dtype)
    wide[:, :, : size[0], : size[1]] = weight
    c, m = weight.shape[:2]
    split = wide.reshape(c, m, taps, stride, taps, stride)[:, :, ::-1, :, ::-1]
    filters = split.transpose(3, 5, 1, 0, 2, 4).reshape(stride * stride * m, c, taps, taps)
    tiled = None if numbers is None else np.tile(numbers, stride * stride)
    return Subpixel(np.ascontiguousarray(filters), tiled, stride, taps - 1, (keep[0], keep[1]), whole)

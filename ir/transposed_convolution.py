"""A transposed convolution as a convolution and a rearrangement of its channels into space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph import attribute, constant, static_shape

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
    weight, shape = constant(node.inputs[1]), static_shape(node.inputs[0])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    numbers = None if bias is None else constant(bias)
    if weight is None or (bias is not None and numbers is None):
        return "its weights or its bias are not constant"
    if shape is None and node.inputs[0] is not None and node.inputs[0].shape is not None:
        dims = list(node.inputs[0].shape)
        shape = tuple(d if isinstance(d, int) else 1 for d in dims[:1]) + tuple(
            d if isinstance(d, int) else 0 for d in dims[1:]
        )
    if weight.ndim != 4 or shape is None or 0 in shape[2:]:
        return "it is not of two dimensions of known size"
    strides, size = _pair(node, "strides", 1), weight.shape[2:]
    if strides[0] != strides[1]:
        return "its strides differ"
    if attribute(node, "group", 1) != 1 or _pair(node, "dilations", 1) != [1, 1]:
        return "it has groups or dilations"
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or attribute(node, "output_shape") is not None:
        return "its padding is implicit"
    stride, pads, extra = strides[0], _pads(node), _pair(node, "output_padding", 0)
    taps = max(-(-k // stride) for k in size)
    keep, whole = [], True
    for axis in range(2):
        made = (shape[2 + axis] + taps - 1) * stride
        stop = (shape[2 + axis] - 1) * stride + size[axis] + extra[axis] - pads[2 + axis]
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


def _pair(node: ir.Node, name: str, usual: int) -> list[int]:
    given: Any = attribute(node, name)
    return [usual, usual] if given is None else [int(n) for n in given]


def _pads(node: ir.Node) -> list[int]:
    given: Any = attribute(node, "pads")
    return [0, 0, 0, 0] if given is None else [int(n) for n in given]

"""Sliding windows of Conv and pooling: explicit pads (auto_pad, ceil_mode), output sizes, elements in a window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph import attribute

__all__ = ["conv_attributes", "integers", "output_size", "pool_attributes", "window_counts"]

Shape = tuple[int, ...]
Sizes = Callable[[], Shape]  # the spatial sizes of the operand, asked for only where they matter


def output_size(size: int, kernel: int, stride: int, dilation: int, begin: int, end: int) -> int:
    """Window positions along one axis: ⌊(size + begin + end − span) / stride⌋ + 1, span = dilation·(kernel − 1) + 1."""
    return (size + begin + end - dilation * (kernel - 1) - 1) // stride + 1


def conv_attributes(node: ir.Node, sizes: Sizes, weight: Shape) -> dict[str, Any]:
    """strides, dilations, explicit pads and group of a Conv."""
    window = _window(node, weight[2:])
    pads = _explicit_pads(node, sizes, window)
    return {"strides": window["strides"], "dilations": window["dilations"], "pads": pads, "group": _group(node)}


def pool_attributes(node: ir.Node, sizes: Sizes, *, ceil: bool = True) -> dict[str, Any]:
    """kernel, strides, dilations and pads of a pooling node; ceil_mode becomes a longer pad at the end.

    Pads are negative where auto_pad meets strides longer than the kernel; runtimes do not agree on what that means.
    """
    window = _window(node, ())
    pads = _explicit_pads(node, sizes, window)
    if ceil and attribute(node, "ceil_mode", 0):
        pads = _ceil(sizes(), window, pads)
    return {**window, "pads": pads}


def window_counts(size: Shape, attributes: dict[str, Any], pads: Shape, include_pad: bool) -> npt.NDArray[np.int64]:
    """How many elements each window of an average pool counts: those inside the map, or inside map and `pads`.

    size: spatial size of the operand. attributes: from `pool_attributes`. pads: those of the node, without ceil_mode's.
    """
    rank = len(size)
    total = np.ones((1,) * rank, np.int64)
    for axis in range(rank):
        kernel, stride, dilation = (attributes[k][axis] for k in ("kernel", "strides", "dilations"))
        begin, end = attributes["pads"][axis], attributes["pads"][axis + rank]
        positions = output_size(size[axis], kernel, stride, dilation, begin, end)
        at = np.arange(positions)[:, None] * stride - begin + np.arange(kernel)[None, :] * dilation
        low, high = (-pads[axis], size[axis] + pads[axis + rank]) if include_pad else (0, size[axis])
        count = ((at >= low) & (at < high)).sum(axis=1)
        total = total * count.reshape([-1 if a == axis else 1 for a in range(rank)])
    return total


def _group(node: ir.Node) -> int:
    group: Any = attribute(node, "group", 1)
    return int(group)


def integers(node: ir.Node, name: str, default: Sequence[int]) -> Shape:
    """An attribute that is a list of integers, or what it stands for where a node has none."""
    found: Any = attribute(node, name)
    return tuple(int(v) for v in (default if found is None else found))


def _window(node: ir.Node, kernel: Shape) -> dict[str, Shape]:
    kernel = integers(node, "kernel_shape", kernel)
    ones = (1,) * len(kernel)
    return {
        "kernel": kernel,
        "strides": integers(node, "strides", ones),
        "dilations": integers(node, "dilations", ones),
    }


def _explicit_pads(node: ir.Node, sizes: Sizes, window: dict[str, Shape]) -> Shape:
    rank = len(window["kernel"])
    mode: Any = attribute(node, "auto_pad", "NOTSET")
    if mode in ("NOTSET", "", None):
        return integers(node, "pads", (0,) * (2 * rank))
    if mode == "VALID":
        return (0,) * (2 * rank)
    begin, end = [], []
    for size, kernel, stride, dilation in zip(sizes(), *window.values(), strict=True):
        missing = (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size
        missing = max(missing, 0) if node.op_type == "Conv" else missing
        small, large = missing // 2, missing - missing // 2
        begin.append(large if mode == "SAME_LOWER" else small)
        end.append(small if mode == "SAME_LOWER" else large)
    return tuple(begin + end)


def _ceil(size: Shape, window: dict[str, Shape], pads: Shape) -> Shape:
    """The pads under which rounding down gives ceil_mode's size; a window that starts behind the operand is dropped."""
    rank, end = len(size), list(pads[len(size) :])
    for axis, (kernel, stride, dilation) in enumerate(zip(*window.values(), strict=True)):
        span = size[axis] + pads[axis] + pads[axis + rank] - dilation * (kernel - 1) - 1
        positions = -(-span // stride) + 1
        if (positions - 1) * stride >= size[axis] + pads[axis]:
            positions -= 1
        end[axis] += max((positions - 1) * stride - span, 0)
    return pads[:rank] + tuple(end)

"""Shape rules of operators that slide a window: convolution, pooling and their kin."""

from __future__ import annotations

from collections.abc import Sequence

from .dimension import Dimension, Expression, at_least, divide
from .shape_question import Question, Shape

__all__ = ["conv_transpose", "depth_to_space", "global_pool", "window"]


def window(q: Question) -> Shape | None:
    """Conv and pooling: ⌊(size + pads − dilated kernel) / stride⌋ + 1, spatially."""
    x = q.shape(0)
    if x is None or len(x) < 3:
        return None
    spatial = len(x) - 2
    kernel: Sequence[Dimension] | None = q.attr("kernel_shape")
    channels = x[1]
    if q.node.op_type == "Conv":
        w = q.shape(1)
        if w is None or len(w) != len(x):
            return None
        channels, kernel = w[0], kernel or w[2:]
    if kernel is None:
        return None
    strides = q.attr("strides") or [1] * spatial
    dilations = q.attr("dilations") or [1] * spatial
    pads = q.attr("pads") or [0] * (2 * spatial)
    auto = q.attr("auto_pad", "NOTSET")
    sizes: list[Dimension] = []
    for i in range(spatial):
        extent = (kernel[i] - 1) * dilations[i] + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            size = divide(x[2 + i] + strides[i] - 1, strides[i])
        elif q.attr("ceil_mode", 0):
            size = None if isinstance(x[2 + i], Expression) else _ceilwindow(x, i, extent, strides, pads, auto)
        else:
            padding = 0 if auto == "VALID" else pads[i] + pads[i + spatial]
            size = divide(x[2 + i] + padding - extent, strides[i])
            size = None if size is None else size + 1
        sizes.append(q.unknown(2 + i) if size is None else size)
    return (x[0], channels, *sizes)


def _ceilwindow(
    x: Shape, i: int, extent: Dimension, strides: Sequence[int], pads: Sequence[int], auto: str
) -> Dimension | None:
    """Pooling with ceil_mode: a last window that would start in the padding behind is dropped."""
    before, after = (0, 0) if auto == "VALID" else (pads[i], pads[i + len(x) - 2])
    size = divide(x[2 + i] + before + after - extent + strides[i] - 1, strides[i])
    if size is None:
        return None
    starts_in_padding = at_least(size * strides[i], x[2 + i] + before)
    return size if starts_in_padding else size + 1


def conv_transpose(q: Question) -> Shape | None:
    x, w = q.shape(0), q.shape(1)
    if x is None or w is None or len(x) != len(w):
        return None
    spatial = len(x) - 2
    channels = w[1] * q.attr("group", 1)
    if "output_shape" in q.node.attributes or q.attr("auto_pad", "NOTSET") != "NOTSET":
        return (x[0], channels, *(q.unknown(2 + i) for i in range(spatial)))
    strides, dilations = q.attr("strides") or [1] * spatial, q.attr("dilations") or [1] * spatial
    pads, extra = q.attr("pads") or [0] * (2 * spatial), q.attr("output_padding") or [0] * spatial
    sizes = [
        (x[2 + i] - 1) * strides[i] + extra[i] + (w[2 + i] - 1) * dilations[i] + 1 - pads[i] - pads[i + spatial]
        for i in range(spatial)
    ]
    return (x[0], channels, *sizes)


def global_pool(q: Question) -> Shape | None:
    x = q.shape(0)
    return None if x is None else x[:2] + (1,) * (len(x) - 2)


def depth_to_space(q: Question) -> Shape | None:
    x, b = q.shape(0), q.attr("blocksize")
    if x is None or len(x) != 4:
        return None
    channels = divide(x[1], b * b, exact=True)
    return (x[0], q.unknown(1) if channels is None else channels, x[2] * b, x[3] * b)

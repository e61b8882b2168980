"""Which outputs are signals: pictures, sound and masks, in place of scores, boxes and vectors."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["is_picture", "signals"]

_PICTURE_CHANNELS = (1, 3, 4)


def signals(model: ir.Model) -> list[ir.Value]:
    """Outputs that are pictures, or have the shape of the signal that comes in."""
    given = [_sizes(v) for v in model.graph.inputs if v.shape is not None and len(v.shape) > 2][:1]
    return [v for v in model.graph.outputs if is_picture(v) or _sizes(v) in given]


def is_picture(value: ir.Value) -> bool:
    """True for four dimensions of which one counts as many channels as pictures have."""
    dims = list(value.shape) if value.shape is not None else []
    return len(dims) == 4 and (dims[1] in _PICTURE_CHANNELS or dims[3] in _PICTURE_CHANNELS)


def _sizes(value: ir.Value) -> tuple[object, ...]:
    """The dimensions behind the first; free ones count as equal."""
    return tuple(d if isinstance(d, int) else None for d in list(value.shape or ())[1:])

"""The range a result is clipped to: an activation that TFLite fuses, or MAXIMUM and MINIMUM behind the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...ir.integer import IntegerOp
from ...targets.tflite import Tensor
from .site import Site, levels, signed

__all__ = ["emit_clipped", "fused"]

# TFLite's name of an activation -> the interval of real numbers that it clips to
_FUSED: Mapping[str, tuple[float, float]] = {
    "RELU": (0.0, np.inf),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}


def bounds(op: IntegerOp) -> tuple[int, int]:
    """Lowest and highest level of the result, in the signed type."""
    assert op.encoding is not None
    _, offset = signed(op.encoding)
    return op.low - offset, op.high - offset


def fused(op: IntegerOp) -> str | None:
    """The activation that clips to exactly the levels of the operation; None where there is no such activation."""
    assert op.encoding is not None
    encoding, _ = signed(op.encoding)
    if bounds(op) == levels(op.encoding):
        return "NONE"
    for name, ends in _FUSED.items():
        low, high = encoding.quantize(np.array(ends, np.float32))
        if bounds(op) == (int(low), int(high)):
            return name
    return None


def emit_clipped(
    site: Site, op: IntegerOp, code: str, inputs: Sequence[Tensor | None], shape: Sequence[int], **options: Any
) -> Tensor:
    """Append an operator with its activation, or with MAXIMUM and MINIMUM where TFLite has no such activation."""
    if op.encoding is None:
        result = site.tensor(shape, name=op.outputs[0])
        site.add(code, inputs, [result], fusedActivationFunction="NONE", **options)
        return result
    activation = fused(op)
    result = site.tensor(shape, encoding=op.encoding, name=op.outputs[0])
    site.add(code, inputs, [result], fusedActivationFunction=activation or "NONE", **options)
    return result if activation is not None else clip(site, op, result)


def clip(site: Site, op: IntegerOp, tensor: Tensor) -> Tensor:
    """MAXIMUM and MINIMUM with the operation's lowest and highest level, where they cut anything off."""
    assert op.encoding is not None
    for code, level, end in zip(("MAXIMUM", "MINIMUM"), bounds(op), levels(op.encoding), strict=True):
        if level != end:
            limit = site.constant(
                np.full((1,) * len(tensor.shape), level, tensor.dtype), scale=tensor.scale, zero=tensor.zero_point
            )
            tensor = site.apply(code, [tensor, limit], tensor.shape)
    return tensor

"""Residual additions that the convolution before them finishes: its own results are never stored.

    y = clip(rint(q · m_q + float32(r − z_r) · m_r) + z_y, low, high),  q = clip(rint(float32(acc) · m), low_q, high_q)

with the levels q of the convolution, less their zero point, as they come from its registers. The bits are those of the
two operations one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.graph import static_shape
from ...ir.integer import FloatNode, IntegerOp, Operand, Step

__all__ = ["Residual", "in_bytes", "joined"]


@dataclass(frozen=True, eq=False)
class Residual:
    """A convolution and the addition that reads its results, as its operand `own`, and nothing else does."""

    convolution: IntegerOp
    addition: IntegerOp
    own: int

    @property
    def other(self) -> Operand:
        """What is added."""
        return self.addition.inputs[1 - self.own]


def joined(steps: Sequence[Step], kept: set[str]) -> Iterator[Step | Residual]:
    """The steps with convolutions and additions as one where they can be; kept: values that have to be stored.

    Of two convolutions under one addition the later one ends with it: the other one's results are there by then.
    """
    reads = Counter(name for step in steps for name in _read(step))
    made = {
        step.outputs[0]: (place, step)
        for place, step in enumerate(steps)
        if isinstance(step, IntegerOp) and _ends(step) and reads[step.outputs[0]] == 1 and step.outputs[0] not in kept
    }
    residuals: dict[str, Residual] = {}
    for step in steps:
        if isinstance(step, IntegerOp) and _adds(step):
            before = [made.get(operand.value, (-1, None)) for operand in step.inputs]
            own = int(before[1][0] > before[0][0])
            convolution = before[own][1]
            if convolution is not None and _same(convolution, step.inputs[own]):
                residuals[step.outputs[0]] = Residual(convolution, step, own)
    inside = {residual.convolution for residual in residuals.values()}
    for step in steps:
        if step not in inside:
            yield residuals.get(step.outputs[0], step) if step.outputs else step


def _read(step: Step) -> list[str]:
    """The names of what a step reads."""
    return list(step.inputs) if isinstance(step, FloatNode) else [operand.value for operand in step.inputs]


def in_bytes(convolution: IntegerOp) -> bool:
    """Signed bytes without zero points times activations in bytes, in two dimensions: what templates compute."""
    weight, zeros, encoding = convolution.weight, convolution.weight_zero_point, convolution.inputs[0].encoding
    assert weight is not None and zeros is not None and encoding is not None
    bytes_ = weight.dtype == np.int8 and encoding.dtype in (ir.DataType.INT8, ir.DataType.UINT8)
    return weight.ndim == 4 and bytes_ and not zeros.any()


def _ends(step: IntegerOp) -> bool:
    """A convolution of one group that has a template, with integer results."""
    dense = step.kind == "conv" and step.encoding is not None and int(step.attributes["group"]) == 1
    return dense and in_bytes(step)


def _adds(step: IntegerOp) -> bool:
    """A sum of two feature maps of one shape."""
    if step.kind != "add" or step.encoding is None or step.addend is not None or len(step.inputs) != 2:
        return False
    shapes = [None if value is None else static_shape(value) for value in step.node.inputs]
    return (
        shapes[0] is not None
        and len(shapes[0]) == 4
        and len(set(shapes)) == 1
        and not any(operand.constant is not None or operand.is_wide for operand in step.inputs)
    )


def _same(convolution: IntegerOp, operand: Operand) -> bool:
    """The addition reads the levels as the convolution makes them."""
    made, read = convolution.encoding, operand.encoding
    assert made is not None
    return read is not None and read.dtype == made.dtype and np.array_equal(read.zero_point, made.zero_point)

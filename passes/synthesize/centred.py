"""Values that average 0 over the training data, though no BatchNorm is left to say so: linear bottlenecks.

The shift β of a BatchNorm whose result only convolutions with BatchNorms of their own read moves nothing but the means
that those take away again. It gets no gradient and stays at the 0 that it began with, so every channel averages 0 over
the training data, however the network was trained. Folding leaves its trace: the bias of the convolution is −W·E[x].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.graph import attribute, constant, is_constant

__all__ = ["borne_out", "centred"]

Floats = npt.NDArray[np.floating]

_LEFT = 0.5  # of ‖W·E[x]‖ may be left on inputs that are not the real ones; a bias that is none of β leaves all of it


def centred(value: ir.Value) -> Floats | None:
    """The bias of the convolution that makes the value, one number a channel, where β = 0 follows from its readers.

    They are convolutions with a bias, as a folded BatchNorm leaves it, and without padding, whose zeros would turn
    a shift into an edge; sums of such values with others count through.
    """
    producer = value.producer()
    if producer is None or producer.op_type != "Conv" or len(producer.inputs) < 3:
        return None
    bias = constant(producer.inputs[2])
    return np.asarray(bias, np.float64) if bias is not None and _shift_is_free(value) else None


def borne_out(mean: Floats, bias: Floats) -> bool:
    """Whether inputs that are not the real ones confirm it: their mean W·x̄ + b is small beside W·x̄, as b = −W·E[x]."""
    return bool(np.linalg.norm(mean) < _LEFT * np.linalg.norm(mean - bias))


def _shift_is_free(value: ir.Value) -> bool:
    """Whether a constant added to a channel of the value could be taken back by the biases of what reads it."""
    waiting, seen = [value], {value}
    while waiting:
        read = waiting.pop()
        uses = list(read.uses())
        if not uses or read.is_graph_output():
            return False
        for use in uses:
            node = use.node
            if node.op_type == "Add" and not any(is_constant(v) for v in node.inputs):
                waiting += {node.outputs[0]} - seen
                seen.add(node.outputs[0])
            elif use.idx != 0 or not _takes_any_shift(node):
                return False
    return True


def _takes_any_shift(node: ir.Node) -> bool:
    if node.op_type != "Conv" or len(node.inputs) < 3 or not is_constant(node.inputs[2]):
        return False
    kernel = constant(node.inputs[1])
    if kernel is None:
        return False
    if attribute(node, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        return all(size == 1 for size in kernel.shape[2:])
    pads = attribute(node, "pads") or ()
    assert isinstance(pads, Sequence)
    return not any(pads)

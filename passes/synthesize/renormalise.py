"""Values behind made inputs brought to the moments that training left, by fixed factors and shifts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.graph import initializer
from ...ir.walk import Walk
from ..context import Feeds
from .centred import borne_out, centred
from .typicality import stored_statistics

__all__ = ["renormalise"]

Floats = npt.NDArray[np.floating]

_GAIN = 5.0  # a channel this far off is not excited by the inputs at all: scaling it further would amplify noise


def renormalise(model: ir.Model, feeds: Sequence[Feeds]) -> int:
    """v ← a·v + b per channel after every value whose trained mean and deviation are known, in place; how many.

    With a and b fixed on the feeds, layer by layer, every layer sees inputs whose first two moments are those of the
    training data; where only the mean is known, to be 0 (`centred`), a is 1. The same fixed a and b then serve the
    copy that is pruned or rounded, so that both see the same perturbation.
    """
    walk = Walk(model, feeds)
    count = 0
    for node in list(model.graph):
        value = node.outputs[0]
        known, bias = stored_statistics(value), centred(value)
        if (known is None and bias is None) or value.is_graph_output():
            continue
        observed = np.concatenate([np.asarray(a) for a in walk.get([value])[0]])
        axes = tuple(a for a in range(observed.ndim) if a != 1)
        is_mean, is_deviation = observed.mean(axes, dtype=np.float64), observed.std(axes, dtype=np.float64)
        if known is None and bias is not None and borne_out(is_mean, bias):
            known = np.zeros_like(is_mean), is_deviation
        if known is None or known[0].shape != is_mean.shape:
            continue
        mean, deviation = known
        gain = np.clip(deviation / np.maximum(is_deviation, 1e-12), 1 / _GAIN, _GAIN)
        _insert(model.graph, node, gain, mean - gain * is_mean, count)
        walk.refresh(model)
        walk.release(set())
        count += 1
    return count


def _insert(graph: ir.Graph, node: ir.Node, gain: Floats, shift: Floats, number: int) -> None:
    value = node.outputs[0]
    assert value.shape is not None
    shape = (-1, *[1] * (len(value.shape) - 2))
    uses = list(value.uses())
    scale = initializer(graph, f"renormalise_gain_{number}", gain.astype(np.float32).reshape(shape))
    offset = initializer(graph, f"renormalise_shift_{number}", shift.astype(np.float32).reshape(shape))
    scaled = ir.Node("", "Mul", [value, scale], name=f"renormalise_mul_{number}")
    shifted = ir.Node("", "Add", [scaled.outputs[0], offset], name=f"renormalise_add_{number}")
    for made in (scaled, shifted):
        made.outputs[0].name = f"{made.name}_out"
        made.outputs[0].shape, made.outputs[0].type = value.shape, value.type
    graph.insert_after(node, [scaled, shifted])
    for use in uses:
        use.node.replace_input_with(use.idx, shifted.outputs[0])

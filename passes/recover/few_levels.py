"""Activations of fewer levels than their type holds: `Clip → QuantizeLinear` as one rounding, whose bounds follow its
step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.graph import constant, fresh_name, initializer, only_consumer
from ...ir.quantization import integer_range

__all__ = ["absorb_clips", "follow_steps"]

_TOLERANCE = 1e-3  # of a level: bounds were computed in float32


def absorb_clips(model: ir.Model) -> dict[str, tuple[int, int]]:
    """Take out every Clip that only holds what a QuantizeLinear reads to some of its levels.

    Returns the lowest and highest of these levels by the name of the QuantizeLinear.
    """
    found = {}
    for clip, quantize, levels in list(_clipped(model.graph)):
        found[str(quantize.name)] = levels
        quantize.replace_input_with(0, clip.inputs[0])
        model.graph.remove(clip, safe=True)
    return found


def follow_steps(model: ir.Model, levels: Mapping[str, tuple[int, int]]) -> None:
    """Move the bounds of the Clip before each named QuantizeLinear to its levels at the scale that it has now."""
    for node in model.graph:
        if node.op_type != "QuantizeLinear" or str(node.name) not in levels:
            continue
        assert node.inputs[0] is not None
        clip = node.inputs[0].producer()
        assert clip is not None
        scale, zero = _parameters(node)
        for place, level in enumerate(levels[str(node.name)], start=1):
            old = clip.inputs[place]
            bound = np.asarray((level - zero) * scale, np.float32)
            if old is not None and bound == constant(old):
                continue
            name = fresh_name(model.graph, f"{node.name}_{('lowest', 'highest')[place - 1]}")
            clip.replace_input_with(place, initializer(model.graph, name, bound))
            if old is not None and not old.uses() and not old.is_graph_input():
                model.graph.initializers.pop(str(old.name), None)


def _clipped(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Node, tuple[int, int]]]:
    """Each Clip whose bounds are levels of the QuantizeLinear that alone reads it, that node, and the levels."""
    for quantize in graph:
        clip = quantize.inputs[0].producer() if quantize.op_type == "QuantizeLinear" and quantize.inputs[0] else None
        if clip is None or clip.op_type != "Clip" or len(clip.inputs) < 3 or not quantize.name:
            continue
        low, high = constant(clip.inputs[1]), constant(clip.inputs[2])
        if only_consumer(clip.outputs[0]) is not quantize or low is None or high is None:
            continue
        if quantize.outputs[0].dtype is None or constant(quantize.inputs[1]) is None:
            continue
        scale, zero = _parameters(quantize)
        if scale.size != 1:
            continue
        ends = [float(np.asarray(bound, np.float64) / scale) + zero for bound in (low, high)]
        lowest, highest = integer_range(quantize.outputs[0].dtype)
        levels = round(ends[0]), round(ends[1])
        exact = all(abs(end - level) < _TOLERANCE for end, level in zip(ends, levels, strict=True))
        fewer = lowest <= levels[0] < levels[1] <= highest and levels != (lowest, highest)
        if exact and fewer:
            yield clip, quantize, levels


def _parameters(quantize: ir.Node) -> tuple[npt.NDArray[np.float64], int]:
    """Scale, and the zero point where it is one number."""
    zero = constant(quantize.inputs[2]) if len(quantize.inputs) > 2 else None
    scale = np.asarray(constant(quantize.inputs[1]), np.float64)
    return scale, 0 if zero is None or zero.size != 1 else int(zero.reshape(()))

"""What a model costs in the unit of a budget, and what is left of it without some units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir import shapes
from ...ir.channels import Group, analyze, remove
from ...ir.cost import cost, cycles, summary
from ...targets.target import Target

__all__ = ["latency", "measure", "reduced", "units_of"]

NodeCost = Callable[[ir.Node], float]

_BYTES_PER_CYCLE = 8.0  # of a mid-range core's memory system; the roofline only needs the order of magnitude
_LANES = 8.0  # float32 multiply-accumulates per cycle of a core whose table names no instruction


def measure(unit: str, model: ir.Model, target: Target | None, node_cost: NodeCost | None = None) -> float:
    """macs, parameters, size in bytes, or latency in cycles of a model whose shapes are inferred."""
    if unit == "latency":
        return latency(model, target, node_cost)
    found = summary(model)
    of: Mapping[str, float] = {"macs": found.macs, "parameters": found.parameters, "size": found.weight_bytes}
    return float(of[unit])


def latency(model: ir.Model, target: Target | None, node_cost: NodeCost | None = None) -> float:
    """Cycles: the back end's cost of every node, or the roofline with channels padded to the alignment, summed."""
    if node_cost is not None:
        return float(sum(node_cost(node) for node in model.graph))
    width = target.channel_alignment if target is not None else 1
    total = 0.0
    for node in model.graph:
        facts = cost(node)
        padding = _padding(node, width)
        total += cycles(facts, macs_per_cycle=_LANES / padding, bytes_per_cycle=_BYTES_PER_CYCLE)
    return total


def _padding(node: ir.Node, width: int) -> float:
    """By how much rounding the output channels up to the vector width inflates the arithmetic."""
    shape = node.outputs[0].shape
    if shape is None or len(shape) < 2:
        return 1.0
    axis = 1 if node.op_type == "Conv" else len(shape) - 1
    channels = shape[axis]
    return -(-channels // width) * width / channels if isinstance(channels, int) and channels else 1.0


def reduced(model: ir.Model, removed: npt.NDArray[np.int64]) -> ir.Model:
    """A copy without the units, shapes inferred."""
    copy = model.clone()
    channels = analyze(copy)
    remove(copy, channels, channels.spare(removed))
    shapes.infer(copy)
    return copy


def units_of(
    groups: Sequence[Group], orders: Sequence[npt.NDArray[np.int64]], counts: Sequence[int]
) -> npt.NDArray[np.int64]:
    """The first `counts` units of every group, in the groups' orders of removal."""
    parts = [g.units[o[:c]] for g, o, c in zip(groups, orders, counts, strict=True)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)

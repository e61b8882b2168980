"""What float layers cost on one core, from the vectors and register tiles that their kernels get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from ....ir.cost import cost
from ....ir.graph import attribute, only_consumer
from ....targets.target import Target
from ..operators.depthwise_tiles import DepthwiseWorkload
from ..operators.depthwise_tiles import lanes_of as depthwise_lanes
from ..schedule import lanes_of, overlapping_tiles, registers, step_cycles, tile_cycles
from ..widening import whole_vectors
from .dot_products import cycles as dot_cycles
from .grouped import joined

__all__ = ["node_cost"]

_FORWARDED = 9.0  # cycles from a product to the next one on a sum in memory: stored, loaded again, and the latency
_BYTES = 32.0  # a cycle, of the first two cache levels
_FUSED = frozenset(
    {"Add", "BatchNormalization", "Clip", "HardSwish", "LeakyRelu", "Mul", "Relu", "Sigmoid", "Sub", "Tanh"}
)
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Constant"})


@dataclass(frozen=True)
class _Product:
    """Results as rows of `width` positions by `columns`, each the sum of `depth` products.

    matrix: a product of matrices, whose last vector of columns may overlap the one before.
    """

    rows: int
    width: int
    columns: int
    depth: float
    matrix: bool = False

    def cycles(self, target: Target) -> float:
        """Steps over the depth; a step is bound by products, by loads, or by the latency of sums that are too few."""
        widest = lanes_of(target)
        columns = whole_vectors(self.columns, widest)
        fits = [lane for lane in (widest, 8, 4) if (lane <= columns if self.matrix else columns % lane == 0)]
        lanes = fits[0] if fits else None
        if lanes is None and self.matrix:
            return self.rows * self.width * columns * dot_cycles(target, self.depth)
        if lanes is None:  # whole vectors and a scalar tail, with the sums in memory
            stored = columns // widest + columns % widest
            return self.rows * self.width * self.depth * max(stored, _FORWARDED)
        tiles = overlapping_tiles(self.width, columns // lanes, registers(target))
        step, _ = min(tile_cycles(self.width, -(-columns // lanes), *tile) for tile in tiles)
        cut = 8 * self.rows * self.width * self.columns / _BYTES if columns > self.columns else 0.0
        return self.rows * self.depth * step + cut


def node_cost(target: Target) -> Callable[[ir.Node], float]:
    """Estimated cycles of a float node on a core of the target; nothing is measured.

    What a kernel applies to its results as it stores them is free, and so is what only renames a tensor.
    """

    def cycles(node: ir.Node) -> float:
        known = cost(node)
        if node.op_type in _VIEWS or _follows(node):
            return 0.0
        moved = (known.weight_bytes + known.activation_bytes) / _BYTES
        if not known.macs:
            return moved
        depthwise = _depthwise(node, target)
        arithmetic = _product(node, known.macs, target).cycles(target) if depthwise is None else depthwise
        return max(arithmetic, known.weight_bytes / _BYTES) + known.activation_bytes / _BYTES

    return cycles


def _follows(node: ir.Node) -> bool:
    """Whether the node is applied to the results of a product, which nobody else reads."""
    if node.op_type not in _FUSED:
        return False
    made = [v.producer() for v in node.inputs if v is not None and only_consumer(v) is node]
    return any(p is not None and (p.op_type in ("Conv", "Gemm", "MatMul") or _follows(p)) for p in made)


def _dims(value: ir.Value | None) -> list[int]:
    shape = None if value is None else value.shape
    return [d if isinstance(d, int) else 1 for d in shape or ()]


def _product(node: ir.Node, macs: int, target: Target) -> _Product:
    out = _dims(node.outputs[0]) or [1]
    depth = macs / max(prod(out), 1)
    if node.op_type == "Conv" and len(out) > 2:  # kernels keep channels last
        batch, columns, *outer, width = out
        groups = int(attribute(node, "group", 1))  # type: ignore[call-overload]
        share, channels = columns // groups, _dims(node.inputs[1])[1]
        if groups > 1 and joined(share, channels, columns, lanes_of(target)) is not None:
            return _Product(batch * prod(outer), width, columns, depth)
        return _Product(batch * groups * prod(outer), width, share, depth)
    *outer, width, columns = [1, 1, *out]
    return _Product(prod(outer), width, columns, depth, matrix=True)


def _depthwise(node: ir.Node, target: Target) -> float | None:
    """Cycles of a convolution with one filter a channel; None for anything else, or where no vector divides it."""
    out, kernel = _dims(node.outputs[0]), _dims(node.inputs[1])[2:]
    group = attribute(node, "group", 1)
    if node.op_type != "Conv" or len(out) != 4 or group == 1 or _dims(node.inputs[1])[:2] != [group, 1]:
        return None
    lanes = depthwise_lanes(out[1], lanes_of(target))
    if lanes is None:
        return None
    size, window = (out[2], out[3]), (kernel[0], kernel[1])
    width = _dims(node.inputs[0])[-1]
    work = DepthwiseWorkload(out[0], out[1], size, width, window, (1, 1), (1, 1), "float32", lanes)
    positions = work.choose().positions
    steps = prod(out) / lanes / positions * prod(kernel)
    return steps * step_cycles(positions, positions + 1)

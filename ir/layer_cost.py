"""What one layer costs on a CPU in int8 and in float32: figures with where they come from, and an analytic model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from .cost import Cost, cost, cycles
from .graph import attribute, is_constant

__all__ = ["LayerCost", "Machine", "analytic"]

_PIPES = 2  # vector units that multiply, on cores with out-of-order execution
_BYTES_PER_CYCLE = 32.0  # of the first two cache levels
# vector instructions for each vector of float32, counted in the kernels' assembly
_QUANTIZE, _DEQUANTIZE = 6, 3  # load, multiply, round, bounds, move, narrow; load and widen, move, multiply
_REQUANTIZE, _BIAS = 5, 1  # what each result takes behind its sum
_PACK, _SUM = 8, 3  # of a product of two activations: to pack the right one, and to sum either for the zero points


@dataclass(frozen=True)
class LayerCost:
    """A layer in either type without conversions, and what converting one element costs; all in `unit`.

    source: the cost back end that measured, or `analytic model`.
    """

    int8: float
    float32: float
    quantize: float
    dequantize: float
    unit: str
    source: str


@dataclass(frozen=True)
class Machine:
    """lanes: float32 numbers in a vector; products: 8-bit products that one integer instruction adds up."""

    lanes: int
    products: int


def analytic(node: ir.Node, machine: Machine) -> LayerCost:
    """Estimated cycles: a roofline of products and bytes, and what each result takes behind its sum."""
    known, results, lanes = cost(node), _elements(node.outputs[0]), machine.lanes
    narrow = replace(known, weight_bytes=known.weight_bytes // 4, activation_bytes=known.activation_bytes // 4)
    products = max(int(machine.products * _filled(node, machine)), lanes)
    vectors = lanes * _PIPES
    return LayerCost(
        int8=_roofline(narrow, products) + results * _REQUANTIZE / vectors + _prepared(node) / vectors,
        float32=_roofline(known, lanes) + results * _BIAS / vectors,
        quantize=_QUANTIZE / vectors,
        dequantize=_DEQUANTIZE / vectors,
        unit="cycles",
        source="analytic model",
    )


def _roofline(known: Cost, products: int) -> float:
    return cycles(known, macs_per_cycle=products * _PIPES, bytes_per_cycle=_BYTES_PER_CYCLE)


def _filled(node: ir.Node, machine: Machine) -> float:
    """How much of what an instruction adds up to one sum the channels of a group fill: of one channel, one product."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if attribute(node, "group", 1) == 1 or weight is None or weight.shape is None:
        return 1.0
    channels, depth = weight.shape[1], max(machine.products // machine.lanes, 1)
    return channels / (-(-channels // depth) * depth) if isinstance(channels, int) else 1.0


def _prepared(node: ir.Node) -> float:
    """Vector instructions, times their lanes, that integers need ahead of a product of two activations."""
    if node.op_type != "MatMul" or any(v is None or is_constant(v) for v in node.inputs):
        return 0.0
    left, right = (_elements(v) for v in node.inputs if v is not None)
    return float(left * _SUM + right * (_PACK + _SUM))


def _elements(value: ir.Value) -> int:
    """How many numbers a value holds; a free dimension counts as 1."""
    return prod(d if isinstance(d, int) else 1 for d in value.shape or ())

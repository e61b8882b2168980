"""`approximate-activations`: smooth activations by a clipped line times x, fitted on what they see."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...ir import shapes
from ...ir.graph import constant, only_consumer, replace_value
from ...ir.probe import Probe, channel_axis, with_shapes
from ..base import Pass
from ..context import Context

__all__ = ["ApproximateActivations", "fit"]

Floats = npt.NDArray[np.float64]

_SLOPES = np.linspace(0.1, 0.8, 141)
_GRID = 2001  # points that the fit is judged on


# operator -> the function x·g(x) that it computes; Erf stands for a Gelu that is written out
_ACTIVATIONS: Mapping[str, Callable[[Floats], Floats]] = {
    "Erf": lambda x: x * 0.5 * (1.0 + np.vectorize(math.erf)(x / np.sqrt(2.0))),
    "Gelu": lambda x: x * 0.5 * (1.0 + np.vectorize(math.erf)(x / np.sqrt(2.0))),
    "HardSwish": lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "Mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "Swish": lambda x: x / (1.0 + np.exp(-x)),
}


@dataclass(frozen=True)
class ApproximateActivations(Pass):
    """Gelu, Mish, Swish ⇒ `x·clip(α·x + ½, 0, 1)` (HardSigmoid, Mul), α the least squares fit on the inputs' moments

    limit: largest share of the activation's variance that the approximation may miss. HardSwish is of this form
    already. The inputs' mean and deviation are observed on the user's or synthesised samples, else they are 0 and 1.
    """

    limit: float = 0.01
    name: ClassVar[str] = "approximate-activations"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        sites = []
        for node in (n for n in model.graph if n.op_type in _ACTIVATIONS):
            ends = (node.inputs[0], node.outputs[0]) if node.op_type != "Erf" else _written_out(node)
            if ends is None or ends[0] is None:
                context.record.skip(node, "not part of a Gelu")
            elif node.op_type == "HardSwish":
                context.record.skip(node, "a clipped line times x already")
            else:
                sites.append((node, ends[0], ends[1]))
        moments = _observed(model, [str(x.name) for _, x, _ in sites], context)
        for node, x, result in sites:
            slope, missed = fit(_ACTIVATIONS[node.op_type], *moments.get(str(x.name), (0.0, 1.0)))
            if missed > self.limit:
                context.record.skip(node, f"the best fit misses {100 * missed:.2g} % of it")
            elif context.record.change(node, f"slope {slope:.3f}, misses {100 * missed:.2g} %"):
                _rewrite(model.graph, x, result, slope)
        if context.record.changes:
            RemoveUnusedNodesPass()(model)
            shapes.infer(model)


def fit(activation: Callable[[Floats], Floats], mean: float, deviation: float) -> tuple[float, float]:
    """α of `x·clip(αx + ½, 0, 1)` with the least mean squared error under N(mean, deviation²), and the share missed."""
    x = mean + deviation * np.linspace(-6.0, 6.0, _GRID)
    weight = np.exp(-0.5 * ((x - mean) / deviation) ** 2)
    weight /= weight.sum()
    wanted = activation(x)
    errors = [float(weight @ (wanted - x * np.clip(a * x + 0.5, 0.0, 1.0)) ** 2) for a in _SLOPES]
    best = int(np.argmin(errors))
    variance = float(weight @ (wanted - weight @ wanted) ** 2)
    return float(_SLOPES[best]), errors[best] / max(variance, 1e-30)


def _written_out(erf: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """x and the result of `½·x·(1 + erf(x/√2))`, its factors in any order; None for another use of Erf."""
    scaled = erf.inputs[0].producer() if erf.inputs[0] is not None else None
    x, factor = _operands(scaled, ("Mul", "Div"))
    if (
        scaled is None
        or x is None
        or not np.isclose(factor, 2**0.5 if scaled.op_type == "Div" else 0.5**0.5, rtol=1e-3)
    ):
        return None
    add = only_consumer(erf.outputs[0])
    if add is None or _operands(add, ("Add",))[1] != 1.0:
        return None
    value, seen = add.outputs[0], False
    total = 1.0
    while (node := only_consumer(value)) is not None and node.op_type == "Mul" and not (seen and total == 0.5):
        other = next((v for v in node.inputs if v is not value), None)
        half, number = _operands(other.producer() if other is not None else None, ("Mul",))
        if other is x:
            seen = True
        elif half is x and number == 0.5:  # (½·x)·(1 + erf)
            seen, total = True, total * number
        elif (found := constant(other, 1)) is not None and found.size == 1:
            total *= float(found.ravel()[0])
        else:
            break
        value = node.outputs[0]
    return (x, value) if seen and total == 0.5 else None


def _operands(node: ir.Node | None, operators: tuple[str, ...]) -> tuple[ir.Value | None, float]:
    """The operand that is computed and the number beside it, of a node of one of the operators; else None."""
    if node is None or node.op_type not in operators:
        return None, 0.0
    for value, other in (tuple(node.inputs), tuple(reversed(node.inputs))):
        number = constant(other, 1)
        if number is not None and number.size == 1 and value is not None:
            return value, float(number.ravel()[0])
    return None, 0.0


def _observed(model: ir.Model, names: list[str], context: Context) -> dict[str, tuple[float, float]]:
    """Mean and deviation over all channels of what the activations read."""
    feeds = list(context.data or context.synthetic or ())
    shaped = with_shapes(model)
    known = {v.name for node in shaped.graph for v in node.outputs if channel_axis(v) is not None}
    wanted = sorted({name for name in names if name in known})
    if not feeds or not wanted:
        return {}
    found = {}
    for name, m in Probe(shaped, wanted, extremes=False)(feeds).items():
        variance = float(np.mean(np.square(m.std)) + np.var(m.mean))
        found[name] = (float(np.mean(m.mean)), max(variance, 1e-12) ** 0.5)
    return found


def _rewrite(graph: ir.Graph, x: ir.Value, result: ir.Value, slope: float) -> None:
    name, last = str(result.name), result.producer()
    assert last is not None
    attributes = [ir.AttrFloat32("alpha", slope), ir.AttrFloat32("beta", 0.5)]
    gate = ir.Node("", "HardSigmoid", [x], attributes, num_outputs=1, name=f"{name}_gate")
    gate.outputs[0].name, gate.outputs[0].type, gate.outputs[0].shape = f"{name}_gate_out", result.type, result.shape
    product = ir.Node("", "Mul", [x, gate.outputs[0]], num_outputs=1, name=f"{name}_gated")
    product.outputs[0].type, product.outputs[0].shape = result.type, result.shape
    graph.insert_after(last, [gate, product])
    result.name = f"{name}_smooth"
    replace_value(result, product.outputs[0])
    product.outputs[0].name = name

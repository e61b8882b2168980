"""One layer at a time, compiled in int8 and in float and measured: what `prefer-faster` decides on while tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ..errors import PlanishError
from ..ir import metadata
from ..ir.graph import is_constant
from ..ir.layer_cost import LayerCost
from ..passes.context import Context
from ..passes.quantize.quantize import Quantize
from ..targets.target import Target

if TYPE_CHECKING:
    from ..backends.tvm.tuning.cost import Cost

__all__ = ["MeasuredLayers"]

_RANGE = {"low": -1.0, "high": 1.0, "source": "measuring"}  # no kernel's speed depends on it
_CONVERSIONS = ("quantize", "dequantize")
_MOVES = ("layout", "transpose")  # between neighbours in one layout there are none


@dataclass
class MeasuredLayers:
    """Figures of a layer by a cost back end; layers of the same sizes are measured once."""

    target: Target
    cost: Cost
    _known: dict[str, LayerCost | None] = field(default_factory=dict)

    def __call__(self, node: ir.Node) -> LayerCost | None:
        """None where the layer cannot be compiled or measured alone."""
        key = _key(node)
        if key not in self._known:
            try:
                self._known[key] = self._measure(node)
            except PlanishError:
                self._known[key] = None  # the analytic model answers
        return self._known[key]

    def _measure(self, node: ir.Node) -> LayerCost | None:
        from ..backends.tvm.tuning.layers import kernel_costs

        plain, integer = _alone(node), _alone(node)
        Quantize().run(integer, Context(target=self.target))
        if not any(n.op_type == "QuantizeLinear" for n in integer.graph):
            return None
        costs = [kernel_costs(model, self.target, self.cost) for model in (integer, plain)]
        if costs[0] is None or costs[1] is None:
            return None
        elements = sum(prod(_static(value)) for value in plain.graph.inputs)
        quantize = costs[0].get("quantize", 0.0) / elements
        return LayerCost(
            int8=_arithmetic(costs[0]),
            float32=_arithmetic(costs[1]),
            quantize=quantize,
            dequantize=quantize / 2,  # half the instructions
            unit=self.cost.unit,
            source=self.cost.name,
        )


def _arithmetic(costs: Mapping[str, float]) -> float:
    """What the layer's own kernels cost, without conversions and moves to another layout."""
    return sum(cost for kind, cost in costs.items() if not kind.startswith((*_CONVERSIONS, *_MOVES)))


def _alone(node: ir.Node) -> ir.Model:
    """A model of this node only, with batch 1, its constants, and ranges for what it reads and makes."""
    inputs: list[ir.Value | None] = []
    data: list[ir.Value] = []
    constants: list[ir.Value] = []
    for value in node.inputs:
        if value is None:
            inputs.append(None)
        elif is_constant(value):
            constants.append(_constant(value))
            inputs.append(constants[-1])
        else:
            data.append(_fixed(value))
            inputs.append(data[-1])
    result = _fixed(node.outputs[0])
    alone = ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), outputs=[result], name="layer")
    assert node.graph is not None
    graph = ir.Graph(data, [result], nodes=[alone], initializers=constants, opset_imports=node.graph.opset_imports)
    for value in (*data, result):
        metadata.put(value, metadata.EVIDENCE, _RANGE)
    return ir.Model(graph, ir_version=10).clone()


def _constant(value: ir.Value) -> ir.Value:
    return ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=value.const_value)


def _fixed(value: ir.Value) -> ir.Value:
    return ir.Value(name=value.name, shape=ir.Shape(_static(value)), type=ir.TensorType(ir.DataType.FLOAT))


def _static(value: ir.Value) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else 1 for d in value.shape or ())


def _key(node: ir.Node) -> str:
    """Layers with the same key compute alike: operator, attributes and shapes."""
    attributes: dict[str, Any] = {name: attribute.value for name, attribute in sorted(node.attributes.items())}
    return repr((node.op_type, attributes, [None if v is None else _static(v) for v in node.inputs]))

"""`prefer-faster`: layers that int8 would make slower on the target stay in float, with both figures."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import onnx_ir as ir

from ...ir import metadata
from ...ir.layer_cost import LayerCost, Machine, analytic
from ...targets.registry import resolve
from ...targets.target import Target
from ..base import Pass
from ..context import Context
from .legality import data_inputs
from .placement import Placement, is_anchor, place, result_of, why_no_encoding

__all__ = ["CPUS", "PreferFaster", "elements", "figures"]

CPUS = ("host", "arm64")


@dataclass(frozen=True)
class PreferFaster(Pass):
    """cost(int8) + conversions > cost(float) ⇒ the layer stays float

    Conversions are those that the layer's type makes necessary beside its neighbours as they are. Costs are measured
    where the run has a cost back end, else estimated by an analytic model; `margin` is what they may be wrong by.
    """

    margin: float = 1.05
    name: ClassVar[str] = "prefer-faster"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        target = context.target or resolve("host")
        if target.kind not in CPUS:
            context.record.note(f"{target} computes in integers wherever it can: no layer is compared")
            return
        placement = place(model, target, why_no_encoding)
        layers = [node for node in placement.integer if is_anchor(node, target)]
        rows: list[dict[str, object]] = []
        for done, node in enumerate(layers):
            context.progress("comparing int8 and float", done / len(layers))
            found = figures(node, target, context)
            int8, float32 = _with_conversions(node, placement, found)
            rows.append(
                {
                    "node": node.name or str(node.outputs[0].name),
                    "op": node.op_type,
                    "int8": int8,
                    "float32": float32,
                    "unit": found.unit,
                    "source": found.source,
                }
            )
            shown = f"{_text(int8, found.unit)} in int8, {_text(float32, found.unit)} in float ({found.source})"
            if int8 <= self.margin * float32:
                context.record.skip(node, f"int8 is not slower: {shown}")
            elif context.record.change(node, f"stays float: {shown}"):
                metadata.put(node, metadata.FLOAT, f"int8 would be slower: {shown}")
                placement = place(model, target, why_no_encoding)
        context.record.measures["layer_costs"] = rows


def figures(node: ir.Node, target: Target, context: Context) -> LayerCost:
    """What the layer costs on a CPU in either type: measured where the run can, else estimated."""
    measured = None if context.layer_cost is None else context.layer_cost(node)
    return measured or analytic(node, _machine(target))


def _machine(target: Target) -> Machine:
    wide = {"avx512f": 16, "avx2": 8}
    lanes = next((count for feature, count in wide.items() if feature in target.features), 4)
    instruction = target.instruction
    return Machine(lanes, 0 if instruction is None else instruction.lanes * instruction.depth)


def _with_conversions(node: ir.Node, placement: Placement, figures: LayerCost) -> tuple[float, float]:
    """The layer in int8 and in float, each with the conversions between it and its neighbours as they are."""
    integer = set(placement.integer)
    int8, float32 = figures.int8, figures.float32
    for value in data_inputs(node):
        producer, size = value.producer(), elements(value)
        if producer in integer:
            float32 += size * figures.dequantize
        elif all(use.node is node or use.node not in integer for use in value.uses()):
            int8 += size * figures.quantize
    result = result_of(node)
    readers = [use.node in integer for use in result.uses()]
    if any(readers):
        float32 += elements(result) * figures.quantize
        if not all(readers) or result.is_graph_output():
            int8 += elements(result) * figures.dequantize
    return int8, float32


def elements(value: ir.Value) -> int:
    """How many numbers a value holds; a free dimension counts as 1."""
    return prod(d if isinstance(d, int) else 1 for d in value.shape or ())


def _text(cost: float, unit: str) -> str:
    return f"{cost * 1e6:.2f} µs" if unit == "s" else f"{cost:.0f} {unit}"

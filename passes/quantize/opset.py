"""Raise a model to the operator set that quantized graphs need."""

from __future__ import annotations

from collections.abc import Container, Iterator

import onnx_ir as ir

__all__ = ["PER_CHANNEL_OPSET", "SIXTEEN_BIT_OPSET", "raise_opset"]

PER_CHANNEL_OPSET = 13  # DequantizeLinear has an axis from here on
SIXTEEN_BIT_OPSET = 21  # QuantizeLinear makes int16 from here on


def raise_opset(model: ir.Model, wanted: int) -> str:
    """Convert the model in place to at least opset `wanted`; the reason when that is not possible, else empty."""
    found = model.opset_imports.get("", 0)
    if found >= wanted:
        return ""
    from onnx import version_converter
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    # the converter drops what is known of values and of nodes
    facts = {value.name: dict(value.metadata_props) for value in _values(model)}
    marks = {node.outputs[0].name: dict(node.metadata_props) for node in model.graph.all_nodes() if node.outputs}
    enlarged = [str(node.outputs[0].name) for node in model.graph.all_nodes() if node.op_type == "Upsample"]
    try:
        proto = ir.to_proto(model)
        del proto.graph.value_info[:]  # stated shapes may contradict the operators, and the converter infers its own
        converted = ir.from_proto(version_converter.convert_version(proto, wanted))
    except Exception as error:
        return f"opset {found} cannot be raised to {wanted}: {str(error).splitlines()[0][:160]}"
    _name_again(converted.graph, enlarged, facts.keys())
    model.graph = converted.graph
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)  # it writes empty regions of interest
    for value in _values(model):
        value.metadata_props.update(facts.get(value.name, {}))
    for node in model.graph.all_nodes():
        if node.outputs:
            node.metadata_props.update(marks.get(node.outputs[0].name, {}))
    return ""


def _name_again(graph: ir.Graph, enlarged: list[str], known: Container[str | None]) -> None:
    """An Upsample becomes a Resize whose result has a new name: give it the old one."""
    made = [n for n in graph.all_nodes() if n.op_type == "Resize" and n.outputs[0].name not in known]
    for node, name in zip(made, [name for name in enlarged if name not in _names(graph)], strict=False):
        node.outputs[0].name = name


def _names(graph: ir.Graph) -> set[str | None]:
    return {value.name for node in graph.all_nodes() for value in node.outputs}


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from node.outputs

"""A model as ONNX protobuf without its weights: what the ONNX checker needs, whatever the size of the model."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir import serde

__all__ = ["skeleton"]

_KEPT = 1024  # elements; smaller constants stay, since shapes, axes and bounds are among them


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """The model with every large constant turned into an input of the main graph of the same name, type and shape.

    Constants inside subgraphs are moved outwards too: names are visible inside. Nothing of their data is read.
    """
    proto = onnx.ModelProto(ir_version=model.ir_version, graph=onnx.GraphProto(name=model.graph.name or "graph"))
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    _Builder(proto.graph, _liftable(model)).fill(proto.graph, model.graph)
    for function in model.functions.values():
        serde.serialize_function_into(proto.functions.add(), function, create_value_info=False)
    return proto


class _Builder:
    """Fills protobuf graphs; `liftable` names the large constants that mean the same in every graph of the model."""

    def __init__(self, main: onnx.GraphProto, liftable: set[str]) -> None:
        self._main = main
        self._liftable = liftable
        self._lifted: set[str] = set()

    def fill(self, proto: onnx.GraphProto, graph: ir.Graph) -> None:
        inputs = {value.name for value in graph.inputs}
        for value in graph.inputs:
            serde.serialize_value_into(proto.input.add(), value)
        for value in graph.initializers.values():
            if value.const_value is not None and value.name not in inputs:
                self._constant(proto, str(value.name), value.const_value)
        for node in graph:
            self._node(proto, node)
            for output in node.outputs:
                if (
                    output.name
                    and (output.type is not None or output.shape is not None)
                    and not output.is_graph_output()
                ):
                    serde.serialize_value_into(proto.value_info.add(), output)
        for output in graph.outputs:
            serde.serialize_value_into(proto.output.add(), output)

    def _constant(self, proto: onnx.GraphProto, name: str, tensor: ir.TensorProtocol) -> None:
        if name not in self._liftable:
            target = proto.initializer.add()
            serde.serialize_tensor_into(target, _inline(tensor))
            target.name = name
        elif name not in self._lifted:
            self._lifted.add(name)
            stand_in = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()))
            serde.serialize_value_into(self._main.input.add(), stand_in)

    def _node(self, proto: onnx.GraphProto, node: ir.Node) -> None:
        large = _large_constant(node)
        if large is not None:
            self._constant(proto, str(node.outputs[0].name), large)
            return
        subgraphs = [a for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH and not a.is_ref()]
        target = proto.node.add()
        if not subgraphs:
            serde.serialize_node_into(target, node)
            return
        target.op_type, target.domain, target.overload = node.op_type, node.domain, node.overload
        target.name = node.name or ""
        target.input.extend("" if value is None else str(value.name) for value in node.inputs)
        target.output.extend(str(value.name) for value in node.outputs)
        for attribute in node.attributes.values():
            into = target.attribute.add()
            if attribute in subgraphs:
                into.name, into.type, into.g.name = (
                    attribute.name,
                    onnx.AttributeProto.GRAPH,
                    attribute.value.name or "g",
                )
                self.fill(into.g, attribute.value)
            else:
                serde.serialize_attribute_into(into, attribute)


def _liftable(model: ir.Model) -> set[str]:
    """Names of large constants; not those that two subgraphs use for different types or shapes."""
    kinds: dict[str, set[tuple[ir.DataType, tuple[int, ...]]]] = {}
    for graph in model.graphs():
        large = [(v.name, v.const_value) for v in graph.initializers.values()]
        large += [(node.outputs[0].name, _large_constant(node)) for node in graph if node.op_type == "Constant"]
        for name, tensor in large:
            if name and tensor is not None and tensor.size > _KEPT:
                kinds.setdefault(name, set()).add((tensor.dtype, tuple(tensor.shape.numpy())))
    return {name for name, found in kinds.items() if len(found) == 1}


def _inline(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """A tensor with its data in it: the checker would look for the file of an external one."""
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype) if isinstance(tensor, ir.ExternalTensor) else tensor


def _large_constant(node: ir.Node) -> ir.TensorProtocol | None:
    if node.op_type != "Constant" or node.domain or "value" not in node.attributes:
        return None
    tensor = node.attributes["value"].value
    return tensor if isinstance(tensor, ir.TensorProtocol) and tensor.size > _KEPT else None

"""`lower`: an ONNX model as a TFLite network: integer steps as int8 operators, float nodes for the CPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...errors import ModelError
from ...ir.graph import static_shape
from ...ir.integer import FloatNode, IntegerOp, Operand, Step, plan
from ...ir.names import Names
from ...targets.tflite import Network, Tensor
from ..batch import shape_option
from . import elementwise, floats
from .forms import ARITHMETIC, KERNELS
from .site import NHWC, Located, NoForm, Site, row_major, signed

__all__ = ["INTERFACE", "Lowered", "Served", "lower"]

INTERFACE = "planish.interface"  # metadata: JSON, for each input and output its name and axis order

_PLUMBING = ("QuantizeLinear", "DequantizeLinear")


@dataclass
class Served:
    """One ONNX node of the plan: its operator, whether it is integer, and the reason where it is not."""

    node: str
    op: str
    integer: bool
    reason: str = ""


@dataclass
class Lowered:
    """The network, every node it serves, the integer steps emitted as such, and where every value lies."""

    network: Network
    served: list[Served] = field(default_factory=list)
    steps: list[IntegerOp] = field(default_factory=list)
    values: dict[str, Located] = field(default_factory=dict)


def lower(model: ir.Model) -> Lowered:
    """The network of a model with static, inferred shapes; ModelError for a node without a TFLite form."""
    emission = _Emission(model)
    emission.declare_inputs()
    for step in emission.steps:
        emission.step(step)
    emission.declare_outputs()
    return emission.lowered


class _Emission:
    """State of one walk: where values lie, and the real numbers of those that were asked for."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.steps = plan(model, ARITHMETIC)
        self.lowered = Lowered(Network())
        self.values = self.lowered.values
        self.reals: dict[Tensor, Tensor] = {}
        self.names = Names(v.name for v in (*model.graph.inputs, *model.graph.outputs))

    def declare_inputs(self) -> None:
        """Inputs: images as NHWC; int8 where nothing but one QuantizeLinear reads them."""
        for value in self.model.graph.inputs:
            name, shape = str(value.name), static_shape(value)
            if name in self.model.graph.initializers:
                continue
            if shape is None:
                raise ModelError(
                    f"input {name!r} has a dynamic shape; an NPU's memory is planned in numbers",
                    where=f"input {name!r}",
                    hint=f"fix it, for example with {shape_option(value)}",
                )
            axes = NHWC if len(shape) == 4 else row_major(len(shape))
            assert value.dtype is not None
            tensor = Tensor(name, tuple(shape[a] for a in axes), value.dtype.numpy().name)
            step = self._only_quantizer(name)
            if step is not None and step.encoding is not None:
                encoding, _ = signed(step.encoding)
                tensor.dtype = encoding.dtype.numpy().name
                tensor.scale, tensor.zero_point = encoding.scale, encoding.zero_point.astype(np.int64)
            self.values[name] = Located(tensor, axes)
            self.lowered.network.inputs.append(tensor)

    def _only_quantizer(self, name: str) -> IntegerOp | None:
        readers = [s for s in self.steps if name in _reads(s)]
        (step,) = readers if len(readers) == 1 else (None,)
        if not isinstance(step, IntegerOp) or step.kind != "quantize" or name in self._outputs():
            return None
        return step

    def _outputs(self) -> list[str]:
        return [str(v.name) for v in self.model.graph.outputs]

    def step(self, step: Step) -> None:
        """Emit one step; an integer operation that TFLite lacks goes through real numbers."""
        if isinstance(step, FloatNode):
            self._float_node(step.node, step.reason)
            return
        if step.kind == "dequantize" or (step.kind == "quantize" and self._is_held(step)):
            self.values[step.outputs[0]] = self._operand(step.inputs[0])
            return
        label = _label(step.node)
        try:
            if step.encoding is None:
                raise NoForm("its result stays float")
            site = self._site(label, step.outputs[0])
            site.nodes = tuple(_label(node) for node in step.covers if node.op_type not in _PLUMBING)
            site.operands = [self._operand(o) for o in step.inputs]
            count = len(site.network.operations)
            try:
                KERNELS[step.kind](site, step)
            except NoForm:
                del site.network.operations[count:]
                raise
        except NoForm as reason:
            self._through_reals(step, str(reason))
            return
        self.values |= dict(zip(step.outputs, site.results, strict=True))
        if step.kind != "requantize":  # one in front of a node has the shape of the node's operand
            _check_shapes(step.node, site.results)
        self.lowered.steps.append(step)
        for node in step.covers:
            if node.op_type not in _PLUMBING:
                into = "" if node is step.node else f"part of {label}"
                self.lowered.served.append(Served(_label(node), node.op_type, True, into))

    def _is_held(self, step: IntegerOp) -> bool:
        return self.values[step.inputs[0].value].tensor.scale is not None

    def _through_reals(self, step: IntegerOp, reason: str) -> None:
        """DEQUANTIZE, the nodes in float, QUANTIZE."""
        inner = [node for node in step.covers if node.op_type not in _PLUMBING]
        if not inner:
            raise ModelError(
                f"{reason}: no TFLite form", where=f"{step.node.op_type} {_label(step.node)}", hint="use --no-compile"
            )
        computed = [o for o in step.inputs if o.constant is None]
        for value, operand in zip(floats.needs(inner[0]), computed, strict=True):
            self.values[str(value.name)] = self._operand(operand)
        for node in inner:
            self._float_node(node, reason)
        result = self.values[str(inner[-1].outputs[0].name)]
        if step.encoding is not None:
            site = self._site(_label(step.node), step.outputs[0])
            site.operands = [result]
            elementwise.quantize(site, step)
            result = site.results[0]
        self.values[step.outputs[0]] = result

    def _float_node(self, node: ir.Node, reason: str) -> None:
        label = _label(node)
        site = self._site(label, str(node.outputs[0].name))
        site.operands = [self._real(str(v.name), site) for v in floats.needs(node)]
        try:
            floats.emit(site, node, KERNELS)
        except NoForm as missing:
            raise ModelError(
                f"there is no TFLite form: {missing}",
                where=f"{node.op_type} {label}",
                hint="--no-compile writes the ONNX file alone; docs/ethos-u.md lists the operators",
            ) from missing
        self.values |= {str(v.name): place for v, place in zip(node.outputs, site.results, strict=False)}
        _check_shapes(node, site.results)
        self.lowered.served.append(Served(label, node.op_type, False, reason))

    def _real(self, name: str, site: Site) -> Located:
        """A float value; integers that stand for it are dequantized once."""
        place = self.values[name]
        if place.tensor.scale is None:
            return place
        if place.tensor not in self.reals:
            self.reals[place.tensor] = elementwise.dequantize(site, place.tensor)
        return Located(self.reals[place.tensor], place.axes)

    def _operand(self, operand: Operand) -> Located:
        if operand.constant is None:
            return self.values[operand.value]
        assert operand.encoding is not None
        encoding, offset = signed(operand.encoding)
        array = operand.constant if not offset else (operand.constant.astype(np.int32) - offset)
        site = self._site("", operand.value)
        tensor = site.constant(
            array.astype(encoding.dtype.numpy()), operand.value, scale=encoding.scale, zero=encoding.zero_point
        )
        return Located(tensor, row_major(array.ndim))

    def _site(self, label: str, stem: str) -> Site:
        return Site(self.lowered.network, self.names, nodes=(label,) if label else (), stem=stem)

    def declare_outputs(self) -> None:
        """Outputs keep the name of the model's; integers stay integers, in the axis order they were computed in."""
        network = self.lowered.network
        taken = set(network.inputs)
        for name in self._outputs():
            place = self.values[name]
            if place.tensor in taken or place.tensor.data is not None:
                site = self._site("", name)
                shape = place.tensor.shape
                place = Located(
                    site.apply("RESHAPE", [place.tensor, site.integers(shape)], shape, newShape=list(shape)), place.axes
                )
            place.tensor.name = name
            taken.add(place.tensor)
            network.outputs.append(place.tensor)
            self.values[name] = place
        sides = {"inputs": [t.name for t in network.inputs], "outputs": self._outputs()}
        axes = {side: [{"name": n, "axes": self.values[n].axes} for n in names] for side, names in sides.items()}
        network.metadata[INTERFACE] = json.dumps(axes).encode()


def _check_shapes(node: ir.Node, places: Sequence[Located]) -> None:
    """What was emitted has the shapes that were inferred; anything else would be a silent error."""
    for value, place in zip(node.outputs, places, strict=False):
        shape = static_shape(value)
        if shape is not None and shape != place.shape:
            raise ModelError(
                f"the TFLite form of {value.name!r} has shape {place.shape}, the model has {shape}",
                where=f"{node.op_type} {_label(node)}",
                hint="--no-compile writes the ONNX file alone; please report the model",
            )


def _reads(step: Step) -> list[str]:
    return list(step.inputs) if isinstance(step, FloatNode) else [o.value for o in step.inputs if o.constant is None]


def _label(node: ir.Node) -> str:
    return node.name or str(node.outputs[0].name)

"""Float nodes to kernel calls: ONNX → Relax (TVM's own frontend) → legalised and fused PrimFuncs → a `Program`."""

from __future__ import annotations

import io
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ...errors import ModelError
from ...ir.graph import is_constant
from ...targets.target import Target
from . import environment, frontend, loop_nest
from .floats.activation_products import in_place
from .folding import VIEWS, legalizations
from .machine import CPU, Machine
from .operators.workload import choose
from .program import Choice, Program
from .row_wise import in_lanes

__all__ = ["feeds", "lower_nodes"]


def feeds(nodes: Sequence[ir.Node], known: Container[str]) -> list[str]:
    """Names of the values the nodes read from outside, once each, in order of first use; all must be known."""
    made = {value.name for node in nodes for value in node.outputs}
    names: dict[str, None] = {}
    for node in nodes:
        for value in node.inputs:
            if value is None or value.name in made or is_constant(value):
                continue
            if str(value.name) not in known:
                raise ModelError(
                    f"value {value.name!r} is read before it is computed",
                    where=f"{node.op_type} node {node.name!r}",
                    hint="check the model with onnx.checker",
                )
            names.setdefault(str(value.name))
    return list(names)


def lower_nodes(
    program: Program,
    nodes: Sequence[ir.Node],
    inputs: Mapping[str, str],
    wanted: Sequence[ir.Value],
    target: tuple[Target, Machine],
    opsets: Mapping[str, int],
) -> list[str]:
    """Append the calls that compute `wanted`, and return their tensors; `inputs`: value name -> row-major tensor."""
    tvm = environment.load()
    nodes = in_place(nodes, wanted, target[0]) if target[1] is CPU else nodes
    proto = _model(program, nodes, inputs, wanted, opsets)
    noise = io.StringIO()
    try:
        module = frontend.imported(proto, noise)
    except Exception as error:
        raise _refusal(error, noise.getvalue(), nodes) from error
    with target[1].target(target[0]):
        module = _fused(tvm, module, nodes)
    walk = _Walk(tvm, program, module, target)
    for parameter, tensor in zip(module["main"].params, inputs.values(), strict=True):
        walk.tensors[parameter] = tensor
    return walk.run()


def _model(
    program: Program,
    nodes: Sequence[ir.Node],
    feeds: Mapping[str, str],
    wanted: Sequence[ir.Value],
    opsets: Mapping[str, int],
) -> Any:
    """The nodes as an ONNX model of their own, with the static shapes that the program knows."""
    import onnx

    constants: dict[str, Any] = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None and is_constant(value) and value.name not in constants:
                assert value.const_value is not None
                constants[str(value.name)] = onnx.numpy_helper.from_array(value.const_value.numpy(), value.name)
    inputs = []
    for name, source in feeds.items():
        tensor = program.tensors[source]
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
        inputs.append(onnx.helper.make_tensor_value_info(name, kind, tensor.shape))
    outputs = [onnx.helper.make_empty_tensor_value_info(str(value.name)) for value in wanted]
    graph = onnx.helper.make_graph(
        [ir.to_proto(node) for node in nodes], "float", inputs, outputs, list(constants.values())
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)


def _refusal(error: Exception, noise: str, nodes: Sequence[ir.Node]) -> ModelError:
    """Name the node that the importer rejected: by its operator, which is all that TVM says."""
    text = str(error).strip() or type(error).__name__
    named = noise.partition("Error converting operator ")[2].partition(",")[0]
    listed = text.partition("not supported for frontend ONNX: ")[2].split(", ")
    rejected = [node for node in nodes if node.op_type == named or node.op_type in listed]
    first = rejected[0] if rejected else nodes[0]
    return ModelError(
        f"operator {first.op_type} cannot be compiled by TVM: {text.splitlines()[-1][:200]}",
        where=f"{first.op_type} node {first.name!r}",
        hint="model.onnx runs in ONNX Runtime; for machine code, replace the operator",
    )


def _fused(tvm: Any, module: Any, nodes: Sequence[ir.Node]) -> Any:
    """The module as fused PrimFuncs; channels stay first where TVM cannot move them through some operator."""
    failure: Exception | None = None
    for layout in (False,) if _has_scalars(tvm, module) else (True, False):
        try:
            return tvm.transform.Sequential(_passes(tvm.relax, layout=layout))(module)
        except Exception as error:  # whatever class of TVM's
            failure = failure or error
    assert failure is not None
    kinds = ", ".join(sorted({node.op_type for node in nodes}))
    raise ModelError(
        f"TVM cannot compile the operators {kinds} together: {(str(failure).strip().splitlines() or ['?'])[-1][:200]}",
        where=f"nodes {nodes[0].name!r} to {nodes[-1].name!r}",
        hint="model.onnx runs in ONNX Runtime; please report the model",
    ) from failure


def _has_scalars(tvm: Any, module: Any) -> bool:
    """Some computed tensor has no axis: TVM 0.27's ConvertLayout segfaults where one meets a feature map."""
    bindings = [binding for block in module["main"].body.blocks for binding in block.bindings]
    kinds = [binding.var.ty for binding in bindings]
    return any(isinstance(kind, tvm.relax.TensorType) and kind.ndim == 0 for kind in kinds)


def _passes(relax: Any, *, layout: bool) -> list[Any]:
    """Convolutions channels-last (not where `layout` is False), then one fused PrimFunc for each group of operators."""
    transform = relax.transform
    channels_last = [transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]})] if layout else []
    return [
        *channels_last,
        transform.LegalizeOps(legalizations()),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
    ]


class _Walk:
    """Reads the lowered Relax function binding by binding into the program."""

    def __init__(self, tvm: Any, program: Program, module: Any, target: tuple[Target, Machine]) -> None:
        self.tvm, self.relax, self.program, self.module = tvm, tvm.relax, program, module
        self.target, self.machine = target
        self.tensors: dict[Any, str | tuple[str, ...]] = {}

    def run(self) -> list[str]:
        """Program tensors of the function's results."""
        body = self.module["main"].body
        for block in body.blocks:
            for binding in block.bindings:
                self.tensors[binding.var] = self._value(binding.value, binding.var)
        found = self._value(body.body, None)
        return [found] if isinstance(found, str) else list(found)

    def _value(self, value: Any, variable: Any) -> Any:
        relax = self.relax
        if value in self.tensors:
            return self.tensors[value]
        if isinstance(value, self.tvm.ir.Constant):
            return self.program.constant(value.value.numpy())
        if isinstance(value, relax.Tuple):
            return tuple(self._value(item, None) for item in value.fields)
        if isinstance(value, relax.TupleGetItem):
            return self._value(value.tuple_value, None)[value.index]
        if isinstance(value, self.tvm.ir.Call):
            return self._call(value, variable)
        raise ModelError(
            f"TVM left a {type(value).__name__} that has no static form",
            where="TVM back end, float part",
            hint="fix every dimension with --shape name:1,3,224,224",
        )

    def _call(self, call: Any, variable: Any) -> Any:
        name = str(getattr(call.op, "name", call.op))
        if name in VIEWS:
            source = self._value(call.args[0], None)
            return self.program.view(source, _static(variable.ty, name), str(variable.ty.dtype))
        if name != "relax.call_tir":
            raise ModelError(
                f"operator {name} has no kernel that runs without the TVM runtime",
                where="TVM back end, float part",
                hint="model.onnx runs in ONNX Runtime",
            )
        symbol = call.args[0].name_hint
        reads = tuple(self._value(item, None) for item in call.args[1].fields)
        kinds = variable.ty.fields if isinstance(variable.ty, self.relax.TupleType) else [variable.ty]
        writes = tuple(self.program.tensor(symbol, _static(kind, symbol), str(kind.dtype)) for kind in kinds)
        function = self.module[call.args[0]].without_attr("global_symbol")
        self._append(function, symbol, reads, writes)
        return writes if isinstance(variable.ty, self.relax.TupleType) else writes[0]

    def _scheduled(self, function: Any) -> Any:
        return self.machine.schedule(function, self.target)

    def _append(self, function: Any, symbol: str, reads: tuple[str, ...], writes: tuple[str, ...]) -> None:
        """The call of a PrimFunc, by the machine's template where it has one."""
        arrays = [self.program.constants.get(self.program.storage(name)) for name in reads]
        shapes = [self.program.tensors[name].shape for name in reads]
        constants = [None if a is None else a.reshape(shape) for a, shape in zip(arrays, shapes, strict=True)]
        found = self.machine.template(function, constants, self.target)
        if found is None:
            function = in_lanes(function) if self.machine is CPU else function
            loop_nest.call(self.program, function, symbol, reads, writes, self._scheduled)
            return
        config = self.program.configs.setdefault(found.workload, choose(found.workload))
        packed = {i: self.program.constant(array) for i, array in found.packed.items()}
        reads = tuple(packed.get(i, name) for i, name in enumerate(reads))
        if found.tiles is not None:
            reads = (*reads, self.program.constant(found.tiles))
            self.program.requires.add("tiles")
        choice = Choice(found.workload, found.scheduled)
        self.program.call(found.scheduled(config), symbol, reads, writes, choice)


def _static(kind: Any, name: str) -> tuple[int, ...]:
    try:
        return tuple(int(extent) for extent in kind.shape)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"the shape of {name} depends on the input",
            where="TVM back end, float part",
            hint="fix every dimension with --shape name:1,3,224,224",
        ) from error

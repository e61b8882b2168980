"""ExportedProgram to ONNX through torch's own exporter, then rid of what the exporter leaves behind."""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import logging
import math
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import torch

from ..errors import ModelError
from . import metadata
from .graph import attribute, is_constant, static_shape

__all__ = ["brief", "from_program", "quiet"]

_LARGEST = 4096  # elements: nothing larger is folded, except the operators that only rearrange a weight
_REARRANGES = ("Concat", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
_FILLS = ("ConstantOfShape", "Expand", "Range", "Tile")


def from_program(program: Any, dimension_names: Mapping[str, str] | None = None) -> ir.Model:
    """The model of a `torch.export.ExportedProgram`, weights copied, BatchNorm kept un-fused.

    dimension_names: what to call the dimensions for which torch made up a symbol, as {"s77": "batch"}.
    Raises ModelError where the program changes its own state, is in training mode, or has no ONNX form.
    """
    model = _convert(program)
    _own_weights(model)
    _record_sources(model)
    _tidy(model)
    _name_dimensions(model, dimension_names or {})
    _refuse_training(model)
    return model


def _refuse_side_effects(program: Any) -> None:
    signature = program.graph_signature
    mutated = sorted({*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()})
    if mutated:
        raise ModelError(
            f"forward changes tensors in place: {', '.join(mutated[:4])}",
            where="capture",
            hint="export the module in eval mode; make state that must persist an input and an output of forward",
        )


def _convert(program: Any) -> ir.Model:
    """ExportedProgram to ONNX by torch's own exporter, its optimizer off because it folds BatchNorm away."""
    try:
        with quiet(), torch.no_grad():
            program, strays = _with_tensor_outputs(program)
            result = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
    except Exception as error:
        operators = _unsupported(error)
        what = f"no ONNX form for {operators}" if operators else f"torch's ONNX exporter failed: {brief(error)}"
        raise ModelError(
            what,
            where=_failing_node(error) or "capture",
            hint="express that part with other torch operators, or keep it outside the captured module",
        ) from error
    _refuse_side_effects(result.exported_program)
    model: ir.Model = result.model
    for i in reversed(strays):
        del model.graph.outputs[i]
    return model


def _with_tensor_outputs(program: Any) -> tuple[Any, list[int]]:
    """The program with a tensor in place of each output that is none (a static size, None), and their positions.

    Such an output has no place in an ONNX graph, and the exporter trips on it.
    """
    results = program.graph_module.graph.output_node().args[0]
    strays = [i for i, result in enumerate(results) if not isinstance(result, torch.fx.Node)]
    if not strays:
        return program, []
    module, signature = copy.deepcopy(program.graph_module), copy.deepcopy(program.graph_signature)
    output = module.graph.output_node()
    filled = list(output.args[0])
    with module.graph.inserting_before(output):
        for i in strays:
            filled[i] = module.graph.call_function(torch.ops.aten.scalar_tensor.default, (0.0,))
            filled[i].meta["val"] = torch.scalar_tensor(0.0)
            signature.output_specs[i].arg = torch.export.graph_signature.TensorArgument(filled[i].name)
    output.args = (tuple(filled),)
    return program._update(module, signature), strays


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unsupported(error: BaseException) -> str:
    found = (re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(e)) for e in _chain(error))
    return ", ".join(sorted({match.group(1) for match in found if match}))


def _failing_node(error: BaseException) -> str:
    found = (re.search(r"node (%\S+)", str(e)) for e in _chain(error))
    return next((match.group(1).strip("%,") for match in found if match), "")


def brief(error: BaseException) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}"


def _own_weights(model: ir.Model) -> None:
    """Copy the weights, so that training the module further does not change the model, nor a pass the module."""
    copies: dict[tuple[Any, ...], Any] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        assert tensor is not None
        array = tensor.numpy()
        view = array.__array_interface__ if array.dtype.kind != "V" else {}
        key = (view.get("data"), array.dtype.str, array.shape, array.strides, id(array) if not view else 0)
        if key not in copies:
            copies[key] = np.array(array, copy=True, order="C")
        value.const_value = ir.Tensor(copies[key], dtype=tensor.dtype, name=value.name)


def _record_sources(model: ir.Model) -> None:
    """Replace the exporter's metadata (stack traces, …) by `planish.source`: module path and fx node."""
    for node in model.graph.all_nodes():
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        for key in [k for k in node.metadata_props if k == "namespace" or k.startswith("pkg.")]:
            del node.metadata_props[key]
        path = next((scope for scope in reversed(scopes[:-1]) if scope), "")
        if scopes:
            metadata.put(node, metadata.SOURCE, [f"{path}/{scopes[-1]}" if path else scopes[-1]])
    for graph in model.graphs():
        graph.metadata_props.clear()
    model.metadata_props.clear()
    for value in [v for graph in model.graphs() for v in (*graph.inputs, *graph.initializers.values())]:
        value.metadata_props.clear()
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.metadata_props.clear()


def _tidy(model: ir.Model) -> None:
    """Fold what the exporter computes at run time but knows already, and drop the zero biases it makes up."""
    from onnxscript.optimizer import _constant_folding as folding

    parameters = set(model.graph.initializers)
    weights = _derived(model)
    sources = {v.name: n.metadata_props.get(metadata.SOURCE) for n in model.graph.all_nodes() for v in n.outputs}
    folding.FoldConstantsPass(
        shape_inference=True, input_size_limit=_LARGEST, output_size_limit=sys.maxsize, should_fold=_worth_folding
    )(model)
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for node in model.graph.all_nodes():
        _drop_zero_bias(node, parameters)
        source = next((sources[v.name] for v in node.outputs if sources.get(v.name)), None)
        if source is not None:
            node.metadata_props.setdefault(metadata.SOURCE, source)
    common_passes.RemoveUnusedNodesPass()(model)
    _keep_names(model, weights)


def _worth_folding(node: ir.Node) -> bool | None:
    """Weights are rearranged at any size, fills stay small, and None leaves the rest to the size of the inputs."""
    if node.op_type in _REARRANGES:
        large = [
            v for v in node.inputs if v is not None and v.const_value is not None and v.const_value.size > _LARGEST
        ]
        tied = any(reader.op_type not in _REARRANGES for value in large for reader in value.consumers())
        return None if tied else True  # a weight that is also used as it is stays one tensor
    if node.op_type in _FILLS:
        shape = static_shape(node.outputs[0])
        return shape is not None and math.prod(shape) <= _LARGEST
    return None


def _derived(model: ir.Model) -> dict[ir.Value, set[str]]:
    """For each value computed from weights alone: the names of these weights."""
    weights: dict[ir.Value, set[str]] = {value: {name} for name, value in model.graph.initializers.items()}
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type == "Constant":
            weights |= {value: set() for value in node.outputs}
        elif inputs and all(value in weights for value in inputs):
            weights |= {value: set().union(*(weights[v] for v in inputs)) for value in node.outputs}
    return weights


def _keep_names(model: ir.Model, sources: Mapping[ir.Value, set[str]]) -> None:
    """A folded weight goes on under the name of the single parameter it was made from."""
    by_name = {value.name: names for value, names in sources.items()}
    initializers = model.graph.initializers
    made: dict[str, list[ir.Value]] = {}
    for name, value in initializers.items():
        names = by_name.get(name, set())
        if len(names) == 1 and name not in names:
            made.setdefault(next(iter(names)), []).append(value)
    for parameter, values in made.items():
        if len(values) == 1 and parameter not in initializers:
            values[0].name = parameter


def _drop_zero_bias(node: ir.Node, parameters: set[str]) -> None:
    if node.op_type not in ("Conv", "ConvTranspose") or len(node.inputs) < 3:
        return
    bias = node.inputs[2]
    if bias is None or bias.name in parameters or not is_constant(bias) or bias.const_value is None:
        return
    if not np.any(bias.const_value.numpy()):
        node.resize_inputs(2)


def _name_dimensions(model: ir.Model, names: Mapping[str, str]) -> None:
    if not names:
        return
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")

    def renamed(dim: Any) -> Any:
        text = dim.value if isinstance(dim, ir.SymbolicDim) else None
        return ir.SymbolicDim(pattern.sub(lambda m: names[m.group()], text)) if text else dim

    for graph in model.graphs():
        for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
            if value.shape is not None:
                value.shape = ir.Shape([renamed(dim) for dim in value.shape])


def _refuse_training(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        training = node.op_type == "BatchNormalization" and attribute(node, "training_mode", 0)
        if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
            flag = node.inputs[2].const_value
            training = flag is None or bool(flag.numpy())
        if training:
            raise ModelError(
                f"the program was exported in training mode: {node.op_type} behaves differently there",
                where=str((metadata.get(node, metadata.SOURCE) or [node.name])[0]),
                hint="call module.eval() before torch.export.export, or give the module itself",
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch's exporters print, log and warn about; errors still arrive as exceptions."""
    disabled = logging.root.manager.disable
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)

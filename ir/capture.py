"""Anything that holds a model becomes an `onnx_ir.Model` of our own: checked, named, its weights constant."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes.common import NameFixPass, RemoveInitializersFromInputsPass

from ..errors import ModelError, UsageError
from . import metadata, shapes
from .verify import Violation, verify

__all__ = ["capture"]

_NOTES = metadata.PREFIX + "capture"
_OLDEST_OPSET = 7
_OLDEST_IR, _NEWEST_IR = 3, onnx.IR_VERSION
_RUN_IR = 13  # the newest that ONNX Runtime takes; files are often newer than what they hold


def capture(
    source: str | Path | onnx.ModelProto | ir.Model | Any,
    example_inputs: Sequence[Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> ir.Model:
    """Read a model from an ONNX file, its text form, a `ModelProto`, an `onnx_ir.Model` or a torch object.

    The source is never modified; external weights stay on disk until a pass reads them. Initialisers that are also
    listed as inputs become constants, and what was normalised is noted under `planish.capture`.

    example_inputs, dynamic_shapes: for `nn.Module` and `GraphModule`, as for `torch.export.export`.
    Raises ModelError when the source is unreadable, invalid or older than opset 7.
    """
    if isinstance(source, (str, Path)):
        model, where = _from_file(Path(source)), str(source)
    elif isinstance(source, onnx.ModelProto):
        model, where = _deserialize(source), "ModelProto"
        _own_tensors(model)
    elif isinstance(source, ir.Model):
        model, where = source.clone(), source.graph.name or "onnx_ir.Model"
        _own_tensors(model)
    elif any(cls.__module__.startswith("torch") for cls in type(source).__mro__):
        from .fx_capture import capture_torch

        model, where = capture_torch(source, example_inputs, dynamic_shapes), type(source).__name__
    else:
        raise UsageError(
            f"a {type(source).__name__} is not a model",
            where="capture",
            hint="give a path, an onnx.ModelProto, an onnx_ir.Model, an nn.Module, a GraphModule or an ExportedProgram",
        )
    _check_versions(model, where)
    _check_external_data(model, where)
    _normalise(model)
    violations = verify(model)
    if violations and violations[0].rule == "onnx" and _state_shapes(model, where):
        violations = verify(model)
    if violations and violations[0].rule == "onnx":
        violations = _without_stated_shapes(model)
    if violations:
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        raise ModelError(
            f"{violations[0].message}{more}",
            where=f"{where}, {violations[0].where}",
            hint="export the model again, or check it with onnx.checker.check_model(path, full_check=True)",
        )
    return model


def _from_file(path: Path) -> ir.Model:
    if path.suffix == ".onnxtxt":
        from .text import load_text

        return load_text(path)
    hint = "give the path of an .onnx file"
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ModelError("a directory is not a model", where=str(path), hint=hint)
        if not size:
            raise ModelError("the file is empty", where=str(path), hint="it was cut off; copy or export it again")
        model = ir.load(path)
    except FileNotFoundError as error:
        raise ModelError("there is no such file", where=str(path), hint=hint) from error
    except OSError as error:
        raise ModelError(f"the file cannot be read: {error.strerror}", where=str(path), hint=hint) from error
    except DecodeError as error:
        raise ModelError(
            "the file is not a complete ONNX model (protobuf decoding failed)",
            where=str(path),
            hint="it is truncated or of another format; copy or export it again",
        ) from error
    except ModelError:
        raise
    except Exception as error:
        raise _malformed(error, str(path)) from error
    return model


def _deserialize(proto: onnx.ModelProto) -> ir.Model:
    try:
        return ir.serde.deserialize_model(proto)
    except Exception as error:
        raise _malformed(error, "ModelProto") from error


def _malformed(error: Exception, where: str) -> ModelError:
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    return ModelError(
        f"the model's structure is malformed: {str(root)[:300]}",
        where=where,
        hint="export it again, or check it with onnx.checker.check_model",
    )


def _check_versions(model: ir.Model, where: str) -> None:
    version = model.ir_version
    if version is None or not _OLDEST_IR <= version <= _NEWEST_IR or not model.graph.outputs:
        what = f"IR version {version}" if model.graph.outputs else "no graph outputs"
        raise ModelError(
            f"this is not an ONNX model that can be read ({what})",
            where=where,
            hint=f"IR versions {_OLDEST_IR} to {_NEWEST_IR} are read; export the model again",
        )
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if opset is not None and opset < _OLDEST_OPSET:
        raise ModelError(
            f"opset {opset} is older than {_OLDEST_OPSET}, the oldest that is read",
            where=where,
            hint="convert it first: onnx.version_converter.convert_version(model, 13)",
        )


def _check_external_data(model: ir.Model, where: str) -> None:
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if not isinstance(tensor, ir.ExternalTensor):
                continue
            path = Path(tensor.base_dir) / tensor.location
            if not path.is_file():
                raise ModelError(
                    f"the external data file {tensor.location!r} is missing",
                    where=f"{where}, initialiser {value.name}",
                    hint="put the weight file beside the model under that name",
                )
            end = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
            if path.stat().st_size < end:
                raise ModelError(
                    f"the external data file {tensor.location!r} is too short: {path.stat().st_size} of {end} bytes",
                    where=f"{where}, initialiser {value.name}",
                    hint="it was cut off; copy it again",
                )


def _own_tensors(model: ir.Model) -> None:
    """Tensors of the model's own: a value that is renamed renames the tensor it holds, which may be the caller's."""
    for graph in (*model.graphs(), *(function.graph for function in model.functions.values())):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _copied(value.const_value)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    node.attributes[name] = ir.AttrTensor(name, _copied(attribute.as_tensor()))


def _copied(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if not isinstance(tensor, ir.serde.TensorProtoTensor):
        return copy.copy(tensor)
    proto = onnx.TensorProto()
    proto.CopyFrom(tensor.raw)
    return ir.serde.TensorProtoTensor(proto)


def _state_shapes(model: ir.Model, where: str) -> bool:
    """Infer the shapes of graph outputs that state none, as runtimes do; ONNX wants at least their rank."""
    if all(value.shape is not None for value in (*model.graph.inputs, *model.graph.outputs)):
        return False
    shapes.infer(model)
    for kind, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        for value in values:
            if value.shape is None and not isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
                raise ModelError(
                    f"the number of dimensions of the graph {kind} {value.name!r} is not stated and cannot be inferred",
                    where=f"{where}, {kind} {value.name!r}",
                    hint="state its shape (sizes may be names) when exporting, or in value.type.tensor_type.shape",
                )
    return True


def _without_stated_shapes(model: ir.Model) -> list[Violation]:
    """Drop the shapes a file states of computed values, which runtimes infer anyway; what is still violated then."""
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                if not value.is_graph_output():  # a graph output must state one
                    value.shape = None
    notes = metadata.get(model, _NOTES) or []
    metadata.put(
        model, _NOTES, [*notes, "stated shapes of computed values contradicted the operators and were dropped"]
    )
    return verify(model)


def _normalise(model: ir.Model) -> None:
    notes: list[str] = []
    listed = [v for v in model.graph.inputs if v.name in model.graph.initializers]
    if listed:
        RemoveInitializersFromInputsPass()(model)
        if model.ir_version > _OLDEST_IR:  # before IR version 4 every weight had to be listed
            notes.append(f"{len(listed)} weights that a caller could override as inputs are now constants")
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    needed = onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    model.ir_version = min(max(model.ir_version, 4), max(needed, _RUN_IR))
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        if "ai.onnx" in graph.opset_imports:  # the long name of the default domain, which is looked up as ""
            graph.opset_imports.setdefault("", graph.opset_imports.pop("ai.onnx"))
    model.graph.name = model.graph.name or "main"  # runtimes take a graph without a name, the ONNX checker does not
    NameFixPass()(model)
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:  # files state other shapes than they hold
                value.dtype, value.shape = value.const_value.dtype, ir.Shape(value.const_value.shape.numpy())
    model.metadata_props.pop(_NOTES, None)  # of the capture of a model that was written since
    if notes:
        metadata.put(model, _NOTES, notes)

"""Torch into the IR: an `nn.Module`, `fx.GraphModule` or `ExportedProgram` becomes an `onnx_ir.Model`.

BatchNormalization stays a node with its statistics, names are the module's own, and every node says where it came from.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import onnx_ir as ir
import torch

from ..errors import ModelError, UsageError
from .fx_exported import brief, from_program, quiet

__all__ = ["capture_torch", "evaluate"]


def capture_torch(source: Any, example_inputs: Any = None, dynamic_shapes: Any = None) -> ir.Model:
    """The model computed by a torch module in eval mode, weights copied, BatchNorm kept un-fused.

    source: `torch.nn.Module`, `torch.fx.GraphModule` or `torch.export.ExportedProgram`; it is left as it was.
    example_inputs: a tensor, a tuple of positional arguments, or a mapping of keyword arguments.
    dynamic_shapes: axes that may vary, as `{"input": {0: "batch"}}` or in any form that `torch.export` takes.
    Raises UsageError when inputs are missing or do not fit, ModelError when the program has no ONNX form.
    """
    if isinstance(source, torch.export.ExportedProgram):
        return from_program(source)
    if not isinstance(source, torch.nn.Module) or isinstance(source, torch.jit.ScriptModule):
        raise UsageError(
            f"a {type(source).__name__} cannot be captured",
            where="capture",
            hint="give an nn.Module, a torch.fx.GraphModule or a torch.export.ExportedProgram",
        )
    return from_program(*_export(source, example_inputs, dynamic_shapes))


def _export(module: Any, example_inputs: Any, dynamic_shapes: Any) -> tuple[Any, dict[str, str]]:
    """The exported program, and the user's name of each symbol torch made for a dynamic dimension."""
    title = type(module).__name__
    if example_inputs is None:
        raise UsageError(
            f"{title} can only be captured with example inputs",
            where="capture",
            hint="pass example_inputs=(torch.randn(1, 3, 224, 224),), one entry for each argument of forward",
        )
    arguments = _bind(module, example_inputs)
    shapes, wanted = _dynamic(arguments, dynamic_shapes)
    arguments.arguments.update(_widen(arguments.arguments, wanted))
    args, kwargs = arguments.args, arguments.kwargs
    errors: list[Exception] = []
    with quiet(), _eval_mode(module), torch.no_grad():
        for strict in (False, True):  # tracing understands more modules; the bytecode analysis, a few others
            try:
                program = torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=strict)
                return program, _symbols(program, wanted)
            except Exception as error:
                errors.append(error)
    fixed = "Constraints violated" in str(errors[0])
    raise ModelError(
        f"torch.export cannot capture {title}: {brief(errors[0])}",
        where=title,
        hint="the module fixes that dimension: leave it out of dynamic_shapes"
        if fixed
        else "check that forward runs on the example inputs and has no Python control flow on tensor values; "
        "`torch.export.export(module, inputs)` shows torch's full account",
    ) from errors[0]


def _bind(module: Any, example_inputs: Any) -> inspect.BoundArguments:
    if isinstance(example_inputs, Mapping):
        args, kwargs = (), dict(example_inputs)
    else:
        args = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
        kwargs = {}
    try:
        return inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise UsageError(
            f"the example inputs do not fit forward{inspect.signature(module.forward)}: {error}",
            where=type(module).__name__,
            hint="give a tuple with one entry for each positional argument, or a mapping of keyword arguments",
        ) from error


def _dynamic(arguments: inspect.BoundArguments, shapes: Any) -> tuple[Any, dict[tuple[str, int], str]]:
    """`dynamic_shapes` as torch.export wants it, and the dimensions that have a name: {(input, axis): name}."""
    wanted: dict[tuple[str, int], str] = {}
    if shapes is None or not isinstance(shapes, (Mapping, tuple, list)):
        return shapes, wanted
    given = dict(shapes) if isinstance(shapes, Mapping) else dict(zip(arguments.arguments, shapes, strict=False))
    unknown = [name for name in given if name not in arguments.arguments]
    if unknown:
        raise UsageError(
            f"dynamic_shapes names {', '.join(map(repr, unknown))}, which is no input",
            where="capture",
            hint=f"the inputs are: {', '.join(arguments.arguments)}",
        )
    for name, axes in given.items():
        pairs = (
            axes.items() if isinstance(axes, Mapping) else enumerate(axes) if isinstance(axes, (tuple, list)) else ()
        )
        for axis, dim in pairs:
            title = dim if isinstance(dim, str) else getattr(dim, "__name__", None)
            if isinstance(axis, int) and title:
                wanted[name, axis] = title
    return {name: _without_names(given.get(name)) for name in arguments.arguments}, wanted


def _without_names(shape: Any) -> Any:
    """Names become `Dim.DYNAMIC`, which lets torch derive relations between dimensions."""
    if isinstance(shape, str):
        return torch.export.Dim.DYNAMIC
    if isinstance(shape, Mapping):
        return {key: _without_names(value) for key, value in shape.items()}
    if isinstance(shape, (tuple, list)):
        return type(shape)(_without_names(value) for value in shape)
    return shape


def _widen(arguments: Mapping[str, Any], wanted: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """Repeat example dimensions of size 1 that are to be dynamic: torch.export takes a 1 for a constant."""
    wide = dict(arguments)
    for name, axis in wanted:
        tensor = wide[name]
        if isinstance(tensor, torch.Tensor) and -tensor.dim() <= axis < tensor.dim() and tensor.shape[axis] == 1:
            wide[name] = torch.cat([tensor, tensor], axis)
    return wide


def _symbols(program: Any, wanted: Mapping[tuple[str, int], str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for node in program.graph.nodes:
        for (owner, axis), name in wanted.items():
            if node.op == "placeholder" and node.name == owner:
                size = node.meta["val"].shape[axis]
                if isinstance(size, torch.SymInt):
                    names.setdefault(str(size), name)
    return names


def evaluate(module: Any, args: tuple[Any, ...]) -> Any:
    """What the module returns in eval mode, without gradients; it is left as it was."""
    with _eval_mode(module), torch.no_grad():
        return module(*args)


@contextlib.contextmanager
def _eval_mode(module: Any) -> Iterator[None]:
    """Eval mode for the duration; every sub-module gets its own training flag back."""
    flags = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in flags:
            part.training = False
        yield
    finally:
        for part, training in flags:
            part.training = training

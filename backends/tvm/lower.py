"""An ONNX model to a `Program`: integer steps through our templates, float nodes through Relax, both as kernel calls."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ...errors import ModelError
from ...ir.graph import static_shape
from ...targets.target import Target
from . import relax_import
from .program import Program, Tensor

__all__ = ["lower"]


def lower(model: ir.Model, target: Target) -> Program:
    """The program of a model whose shapes are all static."""
    program = Program()
    values: dict[str, str] = {}
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue
        name = program.tensor(f"input.{value.name}", _shape(value), value.dtype.numpy().name)
        values[value.name] = name
        program.inputs.append(program.tensors[name])
    relax_import.lower_nodes(program, list(model.graph), values, list(model.graph.outputs), target, model.opset_imports)
    program.finish({str(value.name): values[str(value.name)] for value in model.graph.outputs})
    return program


def _shape(value: ir.Value) -> tuple[int, ...]:
    shape = static_shape(value)
    if shape is None:
        text = "unknown" if value.shape is None else ",".join(str(d) for d in value.shape)
        raise ModelError(
            f"input {value.name!r} has a dynamic shape [{text}]; compiled code needs numbers",
            where=f"input {value.name!r}",
            hint=f"give --shape {value.name}:" + ",".join(
                str(d) if isinstance(d, int) else "1" for d in (value.shape or ())
            ),
        )
    return shape

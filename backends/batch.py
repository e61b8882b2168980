"""A model whose inputs are free in their first dimension only, fixed to batch 1: compiled code needs numbers."""

from __future__ import annotations

import onnx_ir as ir

from ..ir import shapes

__all__ = ["fix_batch"]


def fix_batch(model: ir.Model) -> tuple[ir.Model, list[str]]:
    """A copy compiled code can be made for, and the inputs whose free batch became 1."""
    static = model.clone()
    batches = {str(v.name): (1, *dims[1:]) for v in static.graph.inputs if (dims := _free_only_in_batch(v))}
    if batches:
        shapes.fix_dimensions(static, batches)
    return static, list(batches)


def _free_only_in_batch(value: ir.Value) -> tuple[int, ...] | None:
    """The dimensions of an input whose first is free and whose others are fixed (the first given as 0)."""
    dims = list(value.shape or ())
    if not dims or isinstance(dims[0], int) or not all(isinstance(d, int) for d in dims[1:]):
        return None
    return (0, *(int(d) for d in dims[1:] if isinstance(d, int)))

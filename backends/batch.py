"""Free dimensions of inputs: compiled code needs numbers, so a free batch becomes 1 and others are asked for."""

from __future__ import annotations

import onnx_ir as ir

from ..ir import shapes

__all__ = ["fix_batch", "shape_option"]


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


def shape_option(value: ir.Value) -> str:
    """A `--shape` that would fix the free dimensions of an input: batch 1, a picture of 224, a sequence of 128."""
    dims = list(value.shape or ())
    size = 224 if len(dims) == 4 else 128
    sizes = [d if isinstance(d, int) else size if axis else 1 for axis, d in enumerate(dims)]
    return f"--shape {value.name}:{','.join(map(str, sizes))}"

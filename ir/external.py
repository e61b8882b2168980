"""Weights that lie in a file beside the model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["has_external", "load_external"]


def has_external(model: ir.Model) -> bool:
    """Whether an initialiser's contents are in a file of their own."""
    tensors = (v.const_value for graph in model.graphs() for v in graph.initializers.values())
    return any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)


def load_external(model: ir.Model) -> None:
    """Replace external initialisers by copies in memory, in place.

    onnx_ir's own function closes the files too. A clone shares its tensors with the model it came from, and arrays that
    somebody holds are views of the mapped file, so that it may neither be closed nor lose them.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(np.array(tensor.numpy()), name=tensor.name, dtype=tensor.dtype)

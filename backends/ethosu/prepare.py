"""A copy of a model ready to be emitted: shapes inferred, constants lifted, shape arithmetic folded."""

from __future__ import annotations

import onnx_ir as ir

from ...ir.shapes import infer

__all__ = ["prepared"]


def prepared(model: ir.Model) -> ir.Model:
    """The model given is not touched."""
    from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass
    from onnxscript.optimizer import fold_constants

    copy = model.clone()
    infer(copy)
    if any(node.op_type in ("Shape", "Size", "ConstantOfShape") for node in copy.graph):
        fold_constants(copy, onnx_shape_inference=False)
        RemoveUnusedNodesPass()(copy)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    infer(copy)
    return copy

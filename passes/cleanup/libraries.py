"""Passes of onnx_ir and onnxscript that clean-up runs as they are, with the limits that keep memory bounded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = [
    "common_subexpressions",
    "constant_folding",
    "inline_functions",
    "lift_constants",
    "lift_subgraph_initializers",
    "name_fix",
    "remove_unused",
]

# A fold reads at most 256 KiB and makes at most 1 MiB (of float32); larger constants are folded lazily by fold-weights.
_FOLD_INPUT_LIMIT = 1 << 16
_FOLD_OUTPUT_LIMIT = 1 << 18
_NUMBERS_SINCE = 12  # the opset from which on a Constant may hold plain numbers
_SEQUENCE_FOLDING_SINCE = {"ConcatFromSequence": 13, "SplitToSequence": 18}


def inline_functions() -> object:
    """Calls of the model's own functions become their bodies."""
    from onnx_ir.passes.common import InlinePass

    return InlinePass()


def constant_folding() -> object:
    """onnxscript's folding of operators on small constants, its symbolic evaluation included.

    Left out: what a graph input with a default value feeds, because the caller may override it, and the sequence
    operators before the opset whose Split and Unsqueeze their replacement is written in. Constants it writes as plain
    numbers become tensors where the opset has no such form.
    """
    from onnxscript.optimizer._constant_folding import FoldConstantsPass

    class Folding(FoldConstantsPass):  # type: ignore[misc]  # onnxscript is not typed
        def process_node(self, node: ir.Node, is_function: bool) -> object:
            if any(v is not None and v.is_graph_input() and v.const_value is not None for v in node.inputs):
                return None
            if self._opset_imports.get("", 0) < _SEQUENCE_FOLDING_SINCE.get(node.op_type, 0):
                return None
            return super().process_node(node, is_function)

        def call(self, model: ir.Model) -> ir.passes.PassResult:
            result = super().call(model)
            if model.graph.opset_imports.get("", 0) < _NUMBERS_SINCE:
                for node in model.graph.all_nodes():
                    _hold_tensor(node)
            return result  # type: ignore[no-any-return]

    return Folding(shape_inference=False, input_size_limit=_FOLD_INPUT_LIMIT, output_size_limit=_FOLD_OUTPUT_LIMIT)


def _hold_tensor(node: ir.Node) -> None:
    """The number or numbers of a Constant as a tensor."""
    for name, dtype in (("value_int", np.int64), ("value_float", np.float32)):
        for given in (name, f"{name}s"):
            if node.op_type == "Constant" and given in node.attributes:
                tensor = ir.Tensor(np.asarray(node.attributes.pop(given).value, dtype))
                node.attributes["value"] = ir.AttrTensor("value", tensor)


def common_subexpressions() -> object:
    """Nodes with equal operator, inputs and attributes become one."""
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass

    return CommonSubexpressionEliminationPass()


def lift_constants() -> object:
    """Constant nodes become initialisers."""
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    return LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)


def lift_subgraph_initializers() -> object:
    """Initialisers of subgraphs move to the main graph."""
    from onnx_ir.passes.common import LiftSubgraphInitializersToMainGraphPass

    return LiftSubgraphInitializersToMainGraphPass()


def remove_unused() -> object:
    """Nodes, functions and opset imports that nothing uses are removed."""
    from onnx_ir.passes import Sequential
    from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

    return Sequential(RemoveUnusedNodesPass(), RemoveUnusedFunctionsPass(), RemoveUnusedOpsetsPass())  # type: ignore[no-untyped-call]


def name_fix() -> object:
    """Every value and node has a name of its own."""
    from onnx_ir.passes.common import NameFixPass

    return NameFixPass()

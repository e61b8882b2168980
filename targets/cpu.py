"""What every CPU target shares: the operators that have an integer form, and those that only move data."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["INTEGER_OPS", "MOVEMENT_OPS"]

# operator -> what must hold for the integer kernel to be used ("" when nothing must)
INTEGER_OPS: Mapping[str, str] = {
    "Conv": "constant weights",
    "Gemm": "constant weights, alpha = beta = 1, transA = 0",
    "MatMul": "constant weights on the right, or both factors computed (feature `activation-products`)",
    "Add": "",
    "Sub": "",
    "Mul": "",
    "AveragePool": "",
    "GlobalAveragePool": "",
    "ReduceMean": "constant axes",
    "Relu": "",
    "Clip": "constant bounds",
    "LeakyRelu": "",
    "HardSwish": "",
    "Sigmoid": "",
    "Tanh": "",
}

# input and output share one encoding; the integers pass unchanged
MOVEMENT_OPS: frozenset[str] = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Flatten",
        "GlobalMaxPool",
        "Identity",
        "MaxPool",
        "Pad",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)

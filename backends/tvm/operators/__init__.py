"""Kernels of the integer operations: `OPERATORS` maps each kind of `IntegerOp` to the function that builds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import conv, elementwise, movement, pooling, products
from .grouped import grouped
from .kernel import Kernel
from .located import Located

__all__ = ["OPERATORS"]

OPERATORS: Mapping[str, Callable[[Kernel], Located | list[Located]]] = {
    "add": elementwise.add,
    "average_pool": pooling.average_pool,
    "concat": movement.concat,
    "conv": lambda kernel: conv.conv(kernel, grouped=grouped),
    "dense": conv.dense,
    "depth_to_space": movement.depth_to_space,
    "dequantize": elementwise.dequantize,
    "gather": movement.gather,
    "matmul": products.matmul,
    "max": pooling.max_,
    "max_pool": pooling.max_pool,
    "mean": pooling.mean,
    "mul": elementwise.mul,
    "pad": movement.pad,
    "quantize": elementwise.quantize,
    "requantize": elementwise.requantize,
    "reshape": movement.reshape,
    "resize": movement.resize,
    "slice": movement.slice_,
    "space_to_depth": movement.space_to_depth,
    "split": movement.split,
    "transpose": movement.transpose,
    "unary": elementwise.unary,
}

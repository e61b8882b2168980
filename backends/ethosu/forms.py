"""The TFLite form of every kind of integer operation, and the arithmetic that they have together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...ir.integer import OPTIONAL_KINDS, Arithmetic, IntegerOp
from ...ir.integer.steps import KINDS
from . import elementwise, movement, pooling, products, resizing, transposed
from .site import Site

__all__ = ["ARITHMETIC", "KERNELS"]

KERNELS: Mapping[str, Callable[[Site, IntegerOp], None]] = {
    "add": elementwise.add,
    "average_pool": pooling.average_pool,
    "concat": movement.concat,
    "conv": products.conv,
    "conv_transpose": transposed.conv_transpose,
    "dense": products.dense,
    "depth_to_space": movement.depth_to_space,
    "gather": movement.gather,
    "matmul": products.matmul,
    "max": pooling.maximum,
    "max_pool": pooling.max_pool,
    "mean": pooling.mean,
    "mul": elementwise.mul,
    "pad": movement.pad,
    "quantize": elementwise.quantize,
    "requantize": elementwise.requantize,
    "reshape": movement.reshape,
    "resize": resizing.nearest,
    "resize_linear": resizing.linear,
    "slice": movement.slice_,
    "softmax": elementwise.softmax,
    "space_to_depth": movement.space_to_depth,
    "split": movement.split,
    "transpose": movement.transpose,
    "unary": elementwise.unary,
}
# accumulators have 40 bits and more, and every operator takes 16-bit activations
ARITHMETIC = Arithmetic(frozenset(KINDS) | frozenset(OPTIONAL_KINDS), limit=2**39 - 1, bits=16)

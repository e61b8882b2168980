"""The steps a plan consists of, and what each kind of integer operation carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..quantization import Encoding

__all__ = ["KINDS", "FloatNode", "IntegerOp", "Operand", "Refusal", "Step"]

Array = npt.NDArray[np.generic]

# kind -> its attributes; axes are non-negative, `pads` are (begin of every spatial axis, then end), as in ONNX
KINDS: Mapping[str, str] = {
    "quantize": "",
    "dequantize": "",
    "requantize": "multiplier is 0-d, or broadcast against the operand",
    "conv": "strides, dilations, pads, group; weight [M, C/group, *kernel]; multiplier [M]",
    "dense": "weight [K, N], operand [..., K]; multiplier [N]",
    "matmul": "two operands as in numpy.matmul; multiplier 0-d",
    "mul": "two operands, numpy broadcasting; multiplier 0-d",
    "add": "one or two operands, numpy broadcasting; multiplier [operands]; addend: float32 array or None",
    "mean": "axes, keepdims; multiplier 0-d",
    "average_pool": "kernel, strides, dilations, pads; multiplier 0-d or one for each output position",
    "max_pool": "kernel, strides, dilations, pads (padding never wins)",
    "max": "axes, keepdims",
    "unary": "table: the output level for every input level, lowest first",
    "reshape": "shape (-1 at most once)",
    "transpose": "perm",
    "slice": "axes, starts, sizes, steps: result[i] = operand[start + i · step] along each of the axes",
    "pad": "pads (begin of every axis, then end), mode (constant, reflect, edge, wrap), level",
    "concat": "axis",
    "split": "axis, sizes; one output each",
    "gather": "axis, indices (int64 array, non-negative; its dimensions replace the axis)",
    "depth_to_space": "blocksize, mode (DCR or CRD)",
    "space_to_depth": "blocksize",
    "resize": "axes, indices: one int64 array for each of the axes, taken along it",
}


class Refusal(Exception):
    """Why a node has no integer reading; it stays a float node with this reason."""


@dataclass(frozen=True, eq=False)
class Operand:
    """What an operation reads: the integers of a named value and their encoding (None: the value is float32).

    constant: the integers themselves when they are known; `value` then names an initialiser or a folded constant, and
    the executor takes `constant`, not the value.
    """

    value: str
    encoding: Encoding | None
    constant: Array | None = None

    @property
    def is_wide(self) -> bool:
        """Its levels have more than 8 bits."""
        return self.encoding is not None and self.encoding.dtype.numpy().itemsize > 1


@dataclass(frozen=True, eq=False)
class IntegerOp:
    """One integer operation; `KINDS` says which fields and attributes its kind uses.

    node: the ONNX node at its core. covers: every node whose work it does (activation, Q and DQ nodes included;
    a DQ node may be covered by several operations).
    outputs: names of the values it makes: integers in `encoding`, or float32 where `encoding` is None.
    weight: integers in the kind's layout; weight_zero_point: 0-d, or one for each output channel. bias: int32, one for
    each output channel. low, high: the levels the result is clipped to, a fused activation included.
    reason: for quantize and dequantize, why the boundary is there.
    """

    kind: str
    node: ir.Node
    inputs: tuple[Operand, ...]
    outputs: tuple[str, ...]
    encoding: Encoding | None
    low: int = 0
    high: int = 0
    multiplier: npt.NDArray[np.float32] | None = None
    weight: Array | None = None
    weight_zero_point: npt.NDArray[np.int32] | None = None
    bias: npt.NDArray[np.int32] | None = None
    addend: npt.NDArray[np.float32] | None = None
    table: Array | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    covers: tuple[ir.Node, ...] = ()
    reason: str = ""


@dataclass(frozen=True, eq=False)
class FloatNode:
    """A node that runs as it stands, with the reason it has no integer form; inputs include what its subgraphs read."""

    node: ir.Node
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reason: str


Step = IntegerOp | FloatNode

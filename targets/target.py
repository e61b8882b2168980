"""`Target`: one machine as a table: types, instructions, quantization rules, alignment, memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

__all__ = ["Instruction", "Target"]


@dataclass(frozen=True)
class Instruction:
    """An integer dot-product instruction: `lanes` int32 accumulators, each the sum of `depth` 8-bit products."""

    name: str
    lanes: int
    depth: int
    activation: ir.DataType
    weight: ir.DataType = ir.DataType.INT8


@dataclass(frozen=True)
class Target:
    """Everything passes and back ends may ask of a machine.

    kind: the family (`arm64`, `host`); cpu: the member; features: instruction-set extensions.
    activation, weight: integer types of quantized activations and weights.
    integer_ops: operators with an integer kernel; the key is the ONNX operator, the value says what must hold.
    movement_ops: operators that only move integers, so input and output share one encoding.
    channel_alignment: channel counts that are a multiple of it fill the vector unit.
    llvm: the options of the LLVM target.
    integer_results: no operator can leave its accumulator as float, so results of integer operators are integers too.
    fixed_encodings: (operator, type of activations) -> (scale, zero point) that its result must have.
    threads: how many of the machine's cores one run of compiled code may use.
    """

    name: str
    kind: str
    cpu: str
    triple: str
    features: frozenset[str]
    activation: ir.DataType
    weight: ir.DataType
    instruction: Instruction | None
    integer_ops: Mapping[str, str]
    movement_ops: frozenset[str]
    channel_alignment: int
    cache_bytes: int
    llvm: Mapping[str, object] = field(default_factory=dict)
    integer_results: bool = False
    fixed_encodings: Mapping[tuple[str, ir.DataType], tuple[float, int]] = field(default_factory=dict)
    threads: int = 1

    def __str__(self) -> str:
        return self.name

"""`Arithmetic`: what an executor computes on integers, where executors differ; the plan keeps the rest in float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .steps import KINDS

__all__ = ["EVERYWHERE", "OPTIONAL_KINDS", "Arithmetic"]

# kinds that not every executor has -> their attributes, as in `KINDS`
OPTIONAL_KINDS: Mapping[str, str] = {
    "conv_transpose": "strides, pads, output_padding; weight [C, M, *kernel]; multiplier [M]",
    "softmax": "axis",
    "resize_linear": "axes; matrices: for each of the axes float32 [new, old] that is applied along it; coordinates",
}


@dataclass(frozen=True)
class Arithmetic:
    """kinds: the operations. limit: the largest magnitude that an accumulator holds.

    bits: the widest operands of sums, products of two activations and functions of one variable.
    """

    kinds: frozenset[str] = frozenset(KINDS)
    limit: int = 2**31 - 1
    bits: int = 8


EVERYWHERE = Arithmetic()

"""AVX512-BF16 in the place of the loops of a scheduled kernel that sum products of bfloat16.

An instruction adds two channels of a position times two channels of 16 columns to a vector of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..llvm_functions import ADD_PAIRS, ZERO_SUMS
from .tile_registers import TileRegisters

__all__ = ["PairRegisters"]


class PairRegisters(TileRegisters):
    """Puts vectors of sums, of positions by columns, in the place of the loops around a block that sums."""

    def _beginning(self) -> tuple[list[Any], list[Any]]:
        return [], []

    def _ends(self, sums: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        return [self._call(ZERO_SUMS, place) for place in sums], []

    def _step(
        self, pairs: Sequence[tuple[int, int]], sums: Sequence[Any], positions: Sequence[Any], weights: Sequence[Any]
    ) -> list[Any]:
        return [
            self._call(ADD_PAIRS, place, positions[i], weights[j]) for place, (i, j) in zip(sums, pairs, strict=True)
        ]

    def _call(self, name: str, *arguments: Any) -> Any:
        return self.tirx.Evaluate(self.tirx.call_extern("int32", name, *arguments))

"""`GroupedProduct`: a convolution of several groups as the templates see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .workload import Workload

__all__ = ["GroupedProduct"]


@dataclass(frozen=True)
class GroupedProduct(Workload):
    """Blocks of groups beside each other, each like an image of its own that has its own weights.

    batch: blocks of all images, image by image; channels, filters: of a block; blocks: of an image.
    share: filters of a group, where each lane of a vector of sums reads the channels of its own group; channels are
    then those of a group. 0: all filters of a block read all of its channels, with weights of 0 between groups.
    vector, word: lanes of a register, and products that an instruction sums in each, where `share` is not 0.
    """

    blocks: int
    share: int = 0
    vector: int = 0
    word: int = 0

    @property
    def joined_tiles(self) -> int:
        return self.position_tiles // self.batch

    @property
    def width(self) -> int:
        """Bytes of a position that a block reads, as they lie in a row of the operand."""
        return self.padded_channels * (self.filters // self.share if self.share else 1)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the axes of the results: image, row, column, filter, block."""
        return (self.batch // self.blocks, *self.out, self.filters, self.blocks)

    def axes(self, n: Any, h: Any, w: Any, o: Any) -> tuple[Any, ...]:
        return n // self.blocks, h, w, o, n % self.blocks

    def result(self, *axes: Any) -> tuple[Any, Any, Any, Any]:
        n, h, w, o, block = axes
        return n * self.blocks + block, h, w, o

    def channel(self, o: Any, c: Any) -> Any:
        return o // self.share * self.padded_channels + c if self.share else c

    def inner(self, o: Any, c: Any) -> tuple[Any, ...]:
        """Where a filter and a channel lie in the last axes of packed weights, where `share` is not 0."""
        return c // self.word, o % self.lanes, c % self.word

"""Tiles of products of matrices on tensor cores: which there are, and which one a shape gets on a part."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ...targets.cuda import SHARED_BYTES
from ..tvm.operators.workload import Workload
from .intrinsics import SIDE

__all__ = ["Tile", "choose", "positions", "space"]


@dataclass(frozen=True)
class Tile:
    """What one block computes, in fragments: positions by filters, `depth` of them staged at a time; its warps."""

    rows: int
    columns: int
    depth: int
    warps: tuple[int, int]

    @property
    def shared_bytes(self) -> int:
        """Staged operands, and the sums on their way out."""
        return SIDE * SIDE * ((self.rows + self.columns) * self.depth + 4 * self.rows * self.columns)


_TILES = tuple(
    Tile(rows, columns, depth, warps)
    for rows, columns, warps in [
        (8, 4, (4, 1)),
        (4, 4, (2, 2)),
        (4, 2, (4, 1)),
        (4, 1, (4, 1)),
        (2, 2, (2, 2)),
        (2, 1, (2, 1)),
        (1, 2, (1, 2)),
        (1, 1, (1, 1)),
    ]
    for depth in (4, 2)
)


def positions(p: Workload) -> int:
    """Rows of the product: positions of the result in every image of the batch."""
    return p.batch * prod(p.out)


def space(p: Workload) -> list[Tile]:
    """Every tile that computes the workload; all give the same bits."""
    columns = -(-p.filters // SIDE)
    return [tile for tile in _TILES if tile.columns <= columns and tile.shared_bytes <= SHARED_BYTES]


def choose(p: Workload, processors: int) -> Tile:
    """The tile with the fewest loads for each product among those that give every processor a block, else most blocks.

    An analytic choice: nothing was measured.
    """

    def blocks(tile: Tile) -> int:
        rows, columns = -(-positions(p) // SIDE), -(-p.filters // SIDE)
        return -(-rows // tile.rows) * -(-columns // tile.columns)

    def loads(tile: Tile) -> float:
        return (tile.rows + tile.columns) / (tile.rows * tile.columns)

    tiles = space(p)
    filling = [tile for tile in tiles if blocks(tile) >= processors]
    if filling:
        return min(filling, key=lambda t: (loads(t), -t.depth))
    return max(tiles, key=lambda t: (blocks(t), t.depth, -loads(t)))

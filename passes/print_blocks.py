"""`print-blocks`: the partition of the model into blocks, as notes of the record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..ir.blocks import Grain, block_lines, partition
from ..ir.shapes import infer
from .base import Pass
from .context import Context

__all__ = ["PrintBlocks"]


@dataclass(frozen=True)
class PrintBlocks(Pass):
    """Every block of the main graph: what joins its branches, what it reads and gives, its nodes

    grain: `layer` for a layer with its activation, `block` for a residual or other branching block, or two layers
    where nothing branches, `stage` for blocks of one spatial size.
    """

    grain: Grain = "block"
    name: ClassVar[str] = "print-blocks"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        copy = model.clone()
        infer(copy)
        for block in partition(copy, self.grain):
            for line in block_lines(block):
                context.record.note(line)

"""Cost by a model of the instructions, for arm64 with no board: QEMU counts blocks, llvm-mca says what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ....errors import UsageError
from ....targets.target import Target
from . import emulator, harness, mca
from .candidates import Candidate
from .cost import Measured, Outcome, one_by_one, parse

__all__ = ["InstructionModel", "estimate"]

_COVERED = 0.98  # of the instructions: the blocks that ran rarely count as the mean of the others


class InstructionModel:
    """Estimated cycles of a call: Σ over translation blocks of times run · cycles of the block by llvm-mca.

    No caches, no branch prediction, no overlap of blocks: it ranks kernels, a board tells how fast they are.
    """

    unit: ClassVar[str] = "cycles"
    exact: ClassVar[bool] = True
    batch: ClassVar[int] = 16

    def __init__(self, target: Target) -> None:
        self.target = target
        model = mca.MODELS.get(target.cpu) if target.kind == "arm64" else None
        if model is None:
            raise UsageError(
                f"there is no instruction model of {target.name}",
                where="--tune",
                hint=f"give --rpc HOST:PORT --key NAME, or a target of: {', '.join(f'arm64/{c}' for c in mca.MODELS)}",
            )
        if why := emulator.missing() or mca.missing():
            raise UsageError(
                f"no board is named, and the instruction model cannot run: {why}",
                where="--tune",
                hint="give --rpc HOST:PORT --key NAME, or install what is missing",
            )
        self.model = model
        self.name = f"QEMU + llvm-mca, {model}"
        self._known: dict[tuple[int, ...], float] = {}

    def measure(self, candidates: Sequence[Candidate], *, careful: bool = False) -> list[Outcome]:
        def attempt(some: Sequence[Candidate], directory: Path) -> list[Outcome]:
            harness.build(some, self.target, directory, form="static")
            text, regions = emulator.count(["./measure", "data", "count"], "max", directory)
            costs = [estimate(region, self.model, self._known) for region in regions]
            return [Measured(value, m.digest) for value, m in zip(costs, parse(text), strict=True)]

        return one_by_one(candidates, attempt)


def estimate(region: Mapping[tuple[int, ...], int], model: str, known: dict[tuple[int, ...], float]) -> float:
    """Cycles of a region; `known` keeps what blocks cost, and grows."""
    total = sum(times * len(block) for block, times in region.items())
    order = sorted(region, key=lambda block: -region[block] * len(block))
    chosen, covered = [], 0
    for block in order:
        if covered >= _COVERED * total:
            break
        chosen.append(block)
        covered += region[block] * len(block)
    fresh = [block for block in chosen if block not in known]
    if fresh:
        known |= mca.cycles(fresh, model)
    return sum(region[block] * known[block] for block in chosen) * total / max(covered, 1)

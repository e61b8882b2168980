"""`check-decisions`: share of samples that the compressed model decides otherwise; stops above a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...errors import UsageError, VerificationError
from ...ir.capture import capture
from ..base import Pass
from ..context import Context
from .disparity import flip_rate, identified_exemplars
from .evidence import Labels, compared, decisions

__all__ = ["CheckDecisions"]


@dataclass(frozen=True)
class CheckDecisions(Pass):
    """Share of samples whose predicted class differs from the original's, and which samples they are

    at_most: the largest share that may flip; above it the pipeline stops (exit 4). 1 only reports.
    versions: files of further compressed models of the same original, separated by commas; with them the report lists
    the samples whose most frequent decision over all of them is not the original's (PIEs).
    Runs on the user's data or on synthesised inputs; no labels are needed.
    """

    at_most: float = 1.0
    versions: str = ""
    name: ClassVar[str] = "check-decisions"

    def run(self, model: ir.Model, context: Context) -> None:
        found = compared(context)
        if found is None:
            return
        original, feeds = found
        before, after = decisions(original, feeds), decisions(model, feeds)
        if before is None or after is None:
            context.record.skip("model", "the first output is no vector of scores: there are no decisions to compare")
            return
        rate = flip_rate(before, after)
        flipped = np.flatnonzero(before != after)
        context.record.measures["flips"] = {"rate": rate, "samples": len(before), "flipped": flipped.tolist()}
        context.record.note(
            f"{len(flipped)} of {len(before)} decisions differ from the original's ({100 * rate:.1f} %)"
        )
        if self.versions:
            others = [decisions(capture(Path(file.strip())), feeds) for file in self.versions.split(",")]
            _identify(before, [after, *others], context)
        if rate > self.at_most:
            raise VerificationError(
                f"{100 * rate:.1f} % of the decisions flipped, at most {100 * self.at_most:g} % may",
                where=f"{len(before)} samples",
                hint="compress less, append `recover`, or raise `at-most`",
            )


def _identify(before: Labels, versions: Sequence[Labels | None], context: Context) -> None:
    """Report the pruning-identified exemplars of a population of compressed models."""
    if any(v is None or v.shape != before.shape for v in versions):
        raise UsageError(
            "a model of `versions` does not decide on these inputs as the original does",
            where=f"pass {CheckDecisions.name}",
            hint="name compressed models of the same original",
        )
    exemplars = identified_exemplars(before, np.stack([v for v in versions if v is not None]))
    context.record.measures["exemplars"] = {"versions": len(versions), "samples": exemplars.tolist()}
    context.record.note(f"{len(exemplars)} samples are decided otherwise by most of {len(versions)} compressed models")

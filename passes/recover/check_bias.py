"""`check-bias`: whether compression hurts some classes more than others, on a labelled set; stops above thresholds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...errors import VerificationError
from ..base import Pass
from ..context import Context
from .disparity import cev, confusion, error_changes, sde
from .evidence import NO_ORIGINAL, decisions

__all__ = ["CheckBias"]


@dataclass(frozen=True)
class CheckBias(Pass):
    """CEV and SDE of the classes' error rates against the original's, over a labelled set

    cev: largest combined error variance, sde: largest symmetric distance error, both of percentages; above either the
    pipeline stops (exit 4). `inf` only reports.
    Needs `--data` with an array `labels`. Source: Blakeney et al., "Simon Says", arXiv 2106.07849.
    """

    cev: float = math.inf
    sde: float = math.inf
    name: ClassVar[str] = "check-bias"

    def run(self, model: ir.Model, context: Context) -> None:
        if context.everything is None:
            context.record.skip("model", "no labelled data: give --data with an array `labels`")
            return
        chunks = list(context.everything())
        labels = [label for _, label in chunks if label is not None]
        if len(labels) < len(chunks):
            context.record.skip("model", "the data has no labels: give it an array `labels`")
            return
        if context.original is None:
            context.record.skip("model", NO_ORIGINAL)
            return
        feeds = [feeds for feeds, _ in chunks]
        before, after = decisions(context.original, feeds), decisions(model, feeds)
        if before is None or after is None:
            context.record.skip("model", "the first output is no vector of scores: there are no classes")
            return
        truth = np.concatenate(labels).astype(np.int64)
        classes = int(max(truth.max(), before.max(), after.max())) + 1
        changes = error_changes(confusion(truth, before, classes), confusion(truth, after, classes))
        found_cev, found_sde = cev(changes), sde(changes)
        measures = {"cev": found_cev, "sde": found_sde, "classes": len(changes), "samples": len(truth)}
        context.record.measures["bias"] = measures
        context.record.note(
            f"CEV {found_cev:.0f}, SDE {found_sde:.1f} over {len(changes)} classes; top-1 "
            f"{100 * np.mean(before == truth):.2f} → {100 * np.mean(after == truth):.2f} %"
        )
        for title, value, bound in (("CEV", found_cev, self.cev), ("SDE", found_sde, self.sde)):
            if value > bound:
                raise VerificationError(
                    f"{title} is {value:.1f}, at most {bound:g} is allowed: some classes lose more than others",
                    where=f"{len(changes)} classes, {len(truth)} samples",
                    hint="compress less, append `recover` with feature taps, or raise the bound",
                )

"""`recover`: train what a lossy pass left against the original model, without labels."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import onnx_ir as ir

from ...errors import ModelError, UsageError
from ...ir.capture import capture
from ..base import Pass
from ..context import Context
from .evidence import NO_ORIGINAL
from .inputs import Inputs, gather

__all__ = ["Recover", "require_torch"]

_EWGS_DELTA = 1e-3  # scaling of a gradient by its element's rounding error; Lee et al. start from this
_STEP_RATE = 0.1  # of the learning rate: the share of itself that a quantization step moves by at most


@dataclass(frozen=True)
class Recover(Pass):
    """Train the model to decide as the original does: `L = T²·KL(softmax(z_T/T) ‖ softmax(z_S/T)) + β·L_features`

    The original sees the very same augmented batch as the student (label refinery); outputs that are no scores are
    fitted in mean squared error. Quantized models train the floats behind their levels, with rounding in the forward
    pass (SQAKD), and come back as the same Q/DQ graph.
    steps, batch, learning_rate: of Adam with cosine decay; `--time-budget` ends it earlier, decay and all.
    loss: `distillation`, or `labels` for cross-entropy against `--data`'s labels; share: the first part of the steps
    that is distilled, labels rule the rest (Reduce, Reuse, Recycle).
    features: also match feature maps, by attention (`at`), similarity (`sp`) or probabilistic transfer (`pkt`).
    gradient: of rounding, straight through (`ste`) or scaled element by element (`ewgs`); ranges: what activation and
    weight steps learn: `lsq`, `pact` (from what is clipped alone), or nothing (`fixed`); `dorefa` leaves them alone too
    and rounds `tanh(w)`, scaled to the range of w.
    teachers: files of further models with the same inputs and outputs, separated by commas; in every step one of them
    or the original, drawn at random, is the teacher.
    modules: while the first half lasts, a block that `replace` made is, by chance, still the original's: `linear` or
    `log` curriculum of that chance (BERT-of-Theseus, LCMR).
    augment: pictures in colour are shifted and flipped, synthesised ones also mixed in pairs.
    """

    steps: int = 2000
    batch: int = 128
    learning_rate: float = 1e-3
    temperature: float = 4.0
    loss: Literal["distillation", "labels"] = "distillation"
    share: float = 1.0
    teachers: str = ""
    features: Literal["none", "at", "sp", "pkt"] = "none"
    gradient: Literal["ste", "ewgs"] = "ste"
    ranges: Literal["lsq", "pact", "dorefa", "fixed"] = "lsq"
    modules: Literal["none", "linear", "log"] = "none"
    augment: bool = True
    name: ClassVar[str] = "recover"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        require_torch(self.name)
        if context.original is None:
            context.record.skip("model", NO_ORIGINAL)
            return
        inputs = gather(context)
        if inputs is None:
            context.record.skip("model", "no inputs to train on: put synthesize-inputs before it, or give --data")
            return
        if (self.loss == "labels" or self.share < 1.0) and inputs.labels is None:
            context.record.skip("model", "the data has no labels: give it an array `labels`, or loss=distillation")
            return
        teachers = [context.original, *(capture(Path(f.strip())) for f in self.teachers.split(",") if f.strip())]
        if not context.record.change("model", f"trained on {len(inputs)} samples, {inputs.source}"):
            return
        try:
            self._train(model, context, inputs, teachers)
        except ModelError as error:
            context.record.changes.clear()
            context.record.skip("model", f"{error.what} ({error.where})")

    def _train(self, model: ir.Model, context: Context, inputs: Inputs, teachers: Sequence[ir.Model]) -> None:
        from .checkpoint import Checkpoint, fingerprint
        from .curriculum import ModuleReplacing
        from .distill import Distillation, Settings, feature_taps
        from .loop import Plan, fit
        from .student import Student

        taps = feature_taps(teachers, model) if self.features != "none" else []
        delta = _EWGS_DELTA if self.gradient == "ewgs" else 0.0
        squash = self.ranges == "dorefa"
        rule = "fixed" if self.ranges == "dorefa" else self.ranges
        student = Student.of(model, taps, floats=context.float_weights, delta=delta, rule=rule, squash=squash)
        labels_from = 0 if self.loss == "labels" else self.share * self.steps if self.share < 1.0 else None
        settings = Settings(self.temperature, self.features, labels_from, self.batch, self.steps, context.seed)
        job = Distillation(settings, teachers, student, taps)
        replacing = None
        if self.modules != "none":
            replacing = ModuleReplacing(student.bridge, student.form, teachers[0], self.modules, context.seed)
            if not replacing.switches:
                context.record.note("no block that `replace` made has a counterpart in the original: none is switched")
        train, judge = inputs.split()
        rng = context.rng()
        facts = (self.spec(), context.seed, len(inputs), inputs.source, context.time_budget)
        name = fingerprint(model, *facts, *map(fingerprint, teachers[1:]))
        outcome = fit(
            student.module,
            student.parameter_groups(self.learning_rate, self.learning_rate * _STEP_RATE),
            train.batches(self.batch, rng, self.augment),
            lambda batch, step: job.loss(batch, step, replacing),
            lambda: job.held_out(judge),
            Plan(self.steps, context.time_budget),
            Checkpoint(context.checkpoints, f"recover-{name}"),
            lambda share, loss: context.progress(f"recover, loss {loss:.4g}", share),
            student.keep_steps_positive,
        )
        context.record.measures["training"] = {
            "held_out_loss": [round(outcome.before, 6), round(outcome.after, 6)],
            "steps": outcome.steps,
            "seconds": round(outcome.seconds, 1),
            "samples": len(train),
            "inputs": inputs.source,
        }
        if outcome.resumed:
            context.record.note(f"resumed after step {outcome.resumed}")
        if not outcome.after < outcome.before:
            context.record.changes.clear()
            context.record.skip(
                "model", f"training did not help: held-out loss {outcome.before:.4g} → {outcome.after:.4g}"
            )
            return
        changed = student.write_back()
        context.record.note(
            f"held-out loss {outcome.before:.4g} → {outcome.after:.4g} in {outcome.steps} steps; "
            f"{len(changed)} initialisers changed"
        )


def require_torch(name: str) -> None:
    """UsageError that names the extra when PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise UsageError(
            "training needs PyTorch, which is not installed",
            where=f"pass {name}",
            hint="install the extra: pip install 'planish[torch]'",
        )

"""`prune`: whole channels, heads and hidden units out of the model, within a budget, and the rest refitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import UsageError
from ...ir import shapes
from ...ir.channels import Channels, Group, analyze, remove
from ..base import Pass
from ..context import Context, Feeds
from ..synthesize.typicality import stored_statistics
from .allocate import allocate, choose_levels, fit_budget
from .budget import Budget, parse_budget, reduced, units_of
from .compensate import compensate
from .evidence import Moments, observe, renormalise
from .layers import Floats, layer_of
from .saliency import SALIENCIES
from .sensitivity import OutputError, consumers, problems
from .structured_obs import eliminate

__all__ = ["Prune"]

Ints = npt.NDArray[np.int64]

_MEASURED = (
    0.125,
    0.25,
    0.375,
    0.5,
    0.75,
)  # shares of a group at which the error of the outputs is measured; between, interpolated
_SELECTION_RIDGE = 1e-2
_LOCAL = 0.5  # weight of the local error against that of the outputs, both as logarithms
_SENSITIVITY_FEEDS = 64  # samples the error of the outputs is measured on


@dataclass(frozen=True)
class Prune(Pass):
    """y = W₂·f(W₁x)  ⇒  y ≈ W₂′·f(W₁[K]x), W₂′ = argmin ‖W₂·z − W₂′·z_K‖², K the units kept

    ratio: share of every group's units to remove; budget: e.g. "macs=-40%" (parameters, size, latency), allocated
    over the groups by the error each causes in the outputs. Exactly one of them is given.
    criterion: how units of a group are ranked; compensation: `refit` solves every layer behind for the outputs of
    the original on the user's or synthesised inputs, `none` leaves the weights as they are.
    alignment: kept channels are a multiple of it; 0 takes the target's. ridge, rows: of the least-squares problems.
    """

    ratio: float | None = None
    budget: str = ""
    criterion: Literal["obs", "l1", "l2", "fpgm", "bn-scale", "dfpc", "attention", "random"] = "obs"
    compensation: Literal["refit", "none"] = "refit"
    alignment: int = 0
    ridge: float = 0.1
    rows: int = 8192
    name: ClassVar[str] = "prune"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        if (self.ratio is None) == (not self.budget):
            hint = 'write prune{ratio=0.3} or prune{budget="macs=-40%"}'
            raise UsageError("prune wants a ratio or a budget, one of them", where="prune", hint=hint)
        shapes.infer(model)
        feeds = list(context.data or context.synthetic or ())
        plan = _Plan(self, model, context, feeds)
        if not plan.groups:
            return
        counts = plan.counts()
        if counts is None:
            for group in plan.groups:
                context.record.skip(group.name, "the budget is out of reach at this alignment")
            return
        accepted = [
            n if n and context.record.change(g.name, f"{len(g)} → {len(g) - n} units") else 0
            for g, n in zip(plan.groups, counts, strict=True)
        ]
        for group, wanted in zip(plan.groups, counts, strict=True):
            if not wanted:
                context.record.skip(group.name, "every unit is worth more than elsewhere")
        plan.apply(accepted)


class _Plan:
    """One run of the pass: the teacher (the model, renormalised), its groups, the order in which units go."""

    def __init__(self, options: Prune, model: ir.Model, context: Context, feeds: Sequence[Feeds]) -> None:
        self.options, self.model, self.context, self.feeds = options, model, context, feeds
        self.groups = _candidates(analyze(model), context)
        self.alignment = options.alignment or (context.target.channel_alignment if context.target else 1)
        self.teacher = model.clone()
        self.moments: dict[str, Moments] = {}
        self.refits = options.compensation == "refit" and bool(feeds)
        if options.compensation == "refit" and not feeds:
            context.record.note("no inputs to refit on: run synthesize-inputs first, or give --data")
        if feeds and self.groups:
            renormalised = renormalise(self.teacher, feeds, stored_statistics)
            context.record.measures["renormalised_values"] = renormalised
            shapes.infer(self.teacher)
            layers = [layer for node in self.teacher.graph if (layer := layer_of(node)) is not None]
            wanted = {c.layer.name for g in self.groups for c in consumers(g)}
            self.moments = observe(
                self.teacher, [x for x in layers if x.name in wanted], feeds[::2], options.rows, context.rng()
            )
        self.channels = analyze(self.teacher)
        self.curves: dict[str, Floats] = {}
        self.orders = [self._order(group) for group in self.groups]

    def _order(self, group: Group) -> Ints:
        if self.options.criterion == "obs":
            found = problems(group, self.moments)
            if found:
                count = None if self.options.ratio is None else int(self.options.ratio * len(group)) + 1
                gone = eliminate(found, _SELECTION_RIDGE, count)
                self.curves[group.name] = np.concatenate([[0.0], gone.errors])
                last = np.setdiff1d(np.arange(len(group)), gone.order)
                return np.concatenate([gone.order, last])
            self.context.record.note(f"{group.name}: ranked by l1, no linear consumer with observed inputs")
        criterion = "l1" if self.options.criterion == "obs" else self.options.criterion
        scores = SALIENCIES[criterion](group, self._attention(group), self.context.rng())
        return np.argsort(scores, kind="stable")

    def _attention(self, group: Group) -> dict[str, Floats]:
        """Mean magnitude of the inputs of the group's consumers, per unit."""
        values = [
            np.sqrt(np.diag(m.covariance) + m.mean**2)[c.columns].mean(1)
            for c in consumers(group)
            if (m := self.moments.get(c.layer.name)) is not None
        ]
        return {group.name: np.mean(values, axis=0)} if values else {}

    def counts(self) -> list[int] | None:
        """How many units of every group go."""
        if self.options.ratio is not None:
            levels = [choose_levels(len(g), self.alignment) for g in self.groups]
            return [
                int(level[level <= self.options.ratio * len(g) + 1e-9].max())
                for g, level in zip(self.groups, levels, strict=True)
            ]
        return self._fit(parse_budget(self.options.budget))

    def _fit(self, budget: Budget) -> list[int] | None:
        levels = [choose_levels(len(g), self.alignment) for g in self.groups]
        before = self._cost(budget, self.model)
        savings = [self._savings(budget, g, o, level, before) for g, o, level in self._each(levels)]
        errors = [self._errors(g, o, level) for g, o, level in self._each(levels)]

        def choose(saving: float) -> list[int] | None:
            return allocate(errors, savings, saving)

        def measure(chosen: list[int]) -> float:
            counts = [int(level[i]) for level, i in zip(levels, chosen, strict=True)]
            return before - self._cost(budget, reduced(self.model, units_of(self.groups, self.orders, counts)))

        chosen = fit_budget(choose, measure, budget.share * before)
        if chosen is None:
            return None
        self.context.record.measures["budget"] = {
            "unit": budget.unit,
            "before": before,
            "after": before - measure(chosen),
            "wanted": (1 - budget.share) * before,
        }
        return [int(level[i]) for level, i in zip(levels, chosen, strict=True)]

    def _each(self, levels: list[Ints]) -> list[tuple[Group, Ints, Ints]]:
        return list(zip(self.groups, self.orders, levels, strict=True))

    def _cost(self, budget: Budget, model: ir.Model) -> float:
        return budget.measure(model, self.context.target, self.context.cost)

    def _savings(self, budget: Budget, group: Group, order: Ints, levels: Ints, before: float) -> Floats:
        if len(levels) == 1:
            return np.zeros(1)
        largest = int(levels.max())
        saved = before - self._cost(budget, reduced(self.model, group.units[order[:largest]]))
        return np.asarray(saved * levels / largest)

    def _errors(self, group: Group, order: Ints, levels: Ints) -> Floats:
        """Error at every level: of the outputs, measured at a few levels and log-linear between them; where the local
        error of the consumers is known, the geometric mean of both, since inputs that are not the real ones may leave
        a deep layer idle and so call it worthless."""
        if not self.feeds:
            rank = np.concatenate([[0.0], np.cumsum(np.arange(1, len(group) + 1))])
            return np.asarray(rank[levels] / rank[-1])
        if _LOCAL == 1 and group.name in self.curves:
            return np.asarray(self.curves[group.name][levels])
        measure = OutputError(self.teacher, _few(self.feeds[1::2] or self.feeds), self.moments)  # not what was fitted
        ridge = self.options.ridge if self.refits else None
        at = np.unique([max(1, round(s * len(group))) for s in _MEASURED if s * len(group) <= levels.max() + 1] or [1])
        measured = np.array([max(measure(group, order[:n], ridge), 1e-12) for n in at])
        measured = np.maximum.accumulate(measured)
        found = np.exp(np.interp(np.log(np.maximum(levels, 1)), np.log(at), np.log(measured)))
        beyond = levels < at[0]
        found[beyond] = measured[0] * levels[beyond] / at[0]
        if group.name in self.curves:
            local = np.maximum(self.curves[group.name][levels], 0)
            found = found ** (1 - _LOCAL) * local**_LOCAL
        return np.asarray(np.where(levels == 0, 0.0, found))

    def apply(self, counts: Sequence[int]) -> None:
        """Remove the units from the model, physically, and refit what is left."""
        units = self.channels.spare(units_of(self.groups, self.orders, counts))
        if not len(units):
            return
        student = reduced(self.teacher, units) if self.refits else None
        remove(self.model, analyze(self.model), units)
        shapes.infer(self.model)
        if student is None:
            return
        compensate(
            self.teacher,
            student,
            self.channels,
            units,
            self.feeds,
            ridge=self.options.ridge,
            rows=self.options.rows,
            rng=self.context.rng(),
        )
        _copy_weights(student, self.model)


def _few(feeds: Sequence[Feeds]) -> list[Feeds]:
    chosen: list[Feeds] = []
    seen = 0
    for feed in feeds:
        if seen >= _SENSITIVITY_FEEDS:
            break
        chosen.append(feed)
        seen += max(len(next(iter(feed.values()))), 1)
    return chosen


def _candidates(channels: Channels, context: Context) -> list[Group]:
    found = []
    for group in channels.groups:
        if group.frozen or group.inexact:
            context.record.skip(group.name, group.frozen or group.inexact)
        elif len(group) < 2:
            context.record.skip(group.name, "a single unit")
        else:
            found.append(group)
    return found


def _copy_weights(source: ir.Model, target: ir.Model) -> None:
    """Initialisers by name; new biases come with their nodes' third input."""
    nodes = {str(n.outputs[0].name): n for n in target.graph}
    for name, value in source.graph.initializers.items():
        if name in target.graph.initializers:
            target.graph.initializers[name].const_value = value.const_value
        elif value.const_value is not None and not name.startswith("renormalise_"):
            user = next(iter(value.uses())).node
            made = ir.Value(name=name, const_value=value.const_value, type=value.type, shape=value.shape)
            target.graph.register_initializer(made)
            theirs = nodes[str(user.outputs[0].name)]
            theirs.resize_inputs(3)
            theirs.replace_input_with(2, made)

"""A plan of pruning: the groups of a model, the order in which their units go, and how many of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir import shapes
from ...ir.channels import Channels, Group, analyze, remove
from ...ir.layers import Floats, Layer, layer_of
from ..budget import Budget
from ..context import Context
from ..synthesize.renormalise import renormalise
from .allocate import allocate, choose_levels, fit_budget, give_back
from .compensate import compensate
from .consumers import believed, consumers, problems
from .costs import measure, reduced, units_of
from .evidence import Moments, observe, scale_known
from .merging import merge
from .saliency import SALIENCIES, Activity
from .sensitivity import Sensitivity
from .structured_obs import eliminate

__all__ = ["Plan", "Settings"]

Ints = npt.NDArray[np.int64]

_SELECTION_RIDGE = 1e-2
_COUNTED = 16  # levels of a group at which a saving is counted; linear between them


class Settings(Protocol):
    """The options of `prune` that a plan reads."""

    @property
    def criterion(self) -> str: ...
    @property
    def compensation(self) -> str: ...
    @property
    def alignment(self) -> int: ...
    @property
    def ridge(self) -> float: ...
    @property
    def rows(self) -> int: ...
    @property
    def ratio(self) -> float | None: ...


class Plan:
    """Groups that can be pruned, and for each the order in which its units go.

    The teacher is the model with activations renormalised to the moments of training; it is what everything is
    measured on and refitted to.
    """

    def __init__(self, settings: Settings, model: ir.Model, context: Context) -> None:
        self.settings, self.model, self.context = settings, model, context
        self.feeds = context.fitting()
        self.groups = _candidates(analyze(model), context)
        self.levels = [self._levels(group) for group in self.groups]
        self.teacher = model.clone()
        self.moments: dict[str, Moments] = {}
        self.refits = settings.compensation == "refit" and bool(self.feeds)
        if settings.compensation == "refit" and not self.feeds:
            context.record.note("no inputs to refit on: run synthesize-inputs first, or give --data")
        if self.feeds and self.groups:
            self._observe()
        self.channels = analyze(self.teacher)
        self._activity = Activity(self.teacher, self.moments, self.feeds, context.rng())
        self.curves: dict[str, Floats] = {}
        self.orders = [self._order(group) for group in self.groups]

    def _observe(self) -> None:
        self.context.progress("observing activations", 0.0)
        renormalised = renormalise(self.teacher, self.feeds)
        self.context.record.measures["renormalised_values"] = renormalised
        shapes.infer(self.teacher)
        layers = [layer for node in self.teacher.graph if (layer := layer_of(node)) is not None]
        wanted = {c.layer.name for g in self.groups for c in consumers(g)}
        read = [layer for layer in layers if layer.name in wanted]
        self.moments = observe(self.teacher, read, self.feeds[::2], self.settings.rows, self.context.rng())

    def _order(self, group: Group) -> Ints:
        criterion = self.settings.criterion
        if criterion == "obs":
            found = problems(group, self.moments, self._believe)
            if found:
                count = None if self.settings.ratio is None else int(self.settings.ratio * len(group)) + 1
                gone = eliminate(found, _SELECTION_RIDGE, count)
                self.curves[group.name] = np.concatenate([[0.0], gone.errors])
                last = np.setdiff1d(np.arange(len(group)), gone.order)
                return np.concatenate([gone.order, last])
            self.context.record.note(f"{group.name}: ranked by l1, no linear consumer with observed inputs")
            criterion = "l1"
        return np.argsort(SALIENCIES[criterion](group, self._activity), kind="stable")

    def _believe(self, layer: Layer, covariance: Floats) -> Floats:
        """Real samples are believed as they are; made ones as far as training's statistics bear them out."""
        return covariance if self.context.data else believed(covariance, scale_known(layer))

    def share(self, ratio: float) -> list[int]:
        """How many units of every group go when each may lose a share of its units."""
        pairs = zip(self.groups, self.levels, strict=True)
        return [int(level[level <= ratio * len(group) + 1e-9].max()) for group, level in pairs]

    def within(self, budget: Budget) -> list[int] | None:
        """How many units of every group go to keep a budget at the least error; None when it is out of reach."""
        now = self._cost(budget, self.model)
        base = self.context.original if self.context.budgets.get(budget.unit) is budget else None
        allowed = budget.allowed(now if base is None else self._cost(budget, base))
        if now <= allowed:
            return [0] * len(self.groups)
        savings = [self._savings(budget, g, o, level, now) for g, o, level in self._each()]
        errors = self._errors()

        def choose(saving: float) -> list[int] | None:
            return allocate(errors, savings, saving)

        def save(chosen: list[int]) -> float:
            counts = [int(level[i]) for level, i in zip(self.levels, chosen, strict=True)]
            return now - self._cost(budget, reduced(self.model, units_of(self.groups, self.orders, counts)))

        chosen = fit_budget(choose, save, now - allowed)
        if chosen is None:
            return None
        chosen = give_back(chosen, errors, save, now - allowed)
        self.context.record.measures["budget"] = {
            "unit": budget.unit,
            "before": now,
            "after": now - save(chosen),
            "wanted": allowed,
        }
        return [int(level[i]) for level, i in zip(self.levels, chosen, strict=True)]

    def _levels(self, group: Group) -> Ints:
        """How many units may go. A group too narrow for three multiples of the target's alignment takes half of it."""
        target, given = self.context.target, self.settings.alignment
        alignment = given or (target.channel_alignment if target else 1)
        levels = choose_levels(len(group), alignment)
        while not given and alignment > 1 and len(levels) <= 2:
            alignment //= 2
            levels = choose_levels(len(group), alignment)
        return levels

    def _each(self) -> list[tuple[Group, Ints, Ints]]:
        return list(zip(self.groups, self.orders, self.levels, strict=True))

    def _cost(self, budget: Budget, model: ir.Model) -> float:
        return measure(budget.unit, model, self.context.target, self.context.cost)

    def _savings(self, budget: Budget, group: Group, order: Ints, levels: Ints, before: float) -> Floats:
        """What each level of a group saves alone: counted on the graph without the units, so whole vectors show."""
        at = np.unique(np.linspace(0, len(levels) - 1, min(len(levels), _COUNTED)).round().astype(int))
        costs = [self._cost(budget, reduced(self.model, group.units[order[: levels[i]]])) if i else before for i in at]
        return np.asarray(before - np.interp(np.arange(len(levels)), at, costs))

    def _errors(self) -> list[Floats]:
        """What each level of every group costs; by the share of units alone when there are no inputs."""
        if not self.feeds:
            return [_by_rank(len(g), level) for g, level in zip(self.groups, self.levels, strict=True)]
        unfitted = self.feeds[1::2] or self.feeds  # the covariances come from the others
        ridge = self.settings.ridge if self.refits else None
        sensitivity = Sensitivity(self.teacher, unfitted, self.moments, ridge)
        found = []
        for done, (group, order, level) in enumerate(self._each()):
            self.context.progress("measuring sensitivities", done / len(self.groups))
            found.append(sensitivity.errors(group, order, level, self.curves.get(group.name)))
        return found

    def apply(self, counts: Sequence[int]) -> None:
        """Remove the units from the model, physically, and make up for them."""
        units = self.channels.spare(units_of(self.groups, self.orders, counts))
        if not len(units):
            return
        student = reduced(self.teacher, units) if self.refits else None
        if self.settings.compensation == "merge":
            merge(analyze(self.model), units, self.settings.ridge)
        remove(self.model, analyze(self.model), units)
        shapes.infer(self.model)
        if student is not None:
            settings, rng, progress = self.settings, self.context.rng(), self.context.progress
            compensate(
                self.teacher, student, self.channels, units, self.feeds, settings.ridge, settings.rows, rng, progress
            )
            _copy_weights(student, self.model)


def _by_rank(units: int, levels: Ints) -> Floats:
    rank = np.concatenate([[0.0], np.cumsum(np.arange(1, units + 1))])
    return np.asarray(rank[levels] / rank[-1])


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

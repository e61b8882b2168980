"""`replace`: layers by cheaper ones, from the best closed-form fit, trained block by block against the original."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from ...errors import UsageError
from ...ir import shapes
from ...ir.blocks import partition
from ...ir.graph import attribute
from ...ir.layers import Layer, layer_of
from ..base import Pass
from ..budget import Budget, parse_budget
from ..context import Context, Feeds
from ..prune.costs import measure
from ..prune.evidence import Moments, observe
from ..recover.recover import require_torch
from .blockwise import correct, train_all
from .choose import FACTORIES, Choice, choose, offers, sensitivities
from .decisive import impressions_of, seen
from .factory import Site
from .rewrite import insert
from .trust import trusts

if TYPE_CHECKING:
    from ..synthesize.impressions import Impressions

__all__ = ["Replace"]

_TRIALS = 4  # feeds that the sensitivity of a layer is measured on
_WIDEST = 4096  # inputs of a layer whose covariance is taken; wider ones are fitted with every direction alike


@dataclass(frozen=True)
class Replace(Pass):
    """Conv, Gemm, MatMul ⇒ chains of smaller layers with the same interface, within a budget, fitted on their inputs

    factories: separated by commas: separable, separable-pairs, low-rank-channel, low-rank-spatial, tucker, cp,
    low-rank (Gemm and MatMul), grouped; budget: "macs=-50%", "parameters=-20%", "latency=-30%" or "size=0.5MB".
    blocks: names of layers that may be replaced, with `*`. Only what is faster on the target is taken.
    observe: fit to the inputs that the layers see on the user's or synthesised samples; false fits the weights alone,
    which is plain SVD. Layers that end in scores are fitted and trained on class impressions where there are no real
    samples. train: steps of training for every replacement against the original's activations, each a job
    of its own; correct: steps of the sweep after it, in which each is trained on what the ones before it give.
    limit: largest share of a layer's output variance that its replacement may miss in the end; 1 accepts all.
    """

    budget: str = "macs=-50%"
    factories: str = "separable,low-rank-channel,low-rank-spatial,low-rank"
    blocks: str = "*"
    observe: bool = True
    train: int = 0
    correct: int = 0
    limit: float = 1.0
    workers: int = 0
    rows: int = 8192
    name: ClassVar[str] = "replace"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        names = [name.strip() for name in self.factories.split(",")]
        for name in names:
            if name not in FACTORIES:
                hint = f"the factories are {', '.join(FACTORIES)}"
                raise UsageError(f"there is no factory {name!r}", where=f"pass {self.name}", hint=hint)
        budget = parse_budget(self.budget)
        shapes.infer(model)
        feeds = context.fitting()
        layers = _layers(model, self.blocks, context)
        if not layers:
            return
        decisive = "low-rank" in names and (self.observe or self.train)
        impressions = impressions_of(model, layers, context) if decisive else {}
        moments = self._moments(model, layers, feeds, impressions, context)
        trust = trusts([layer for layer in layers if layer.name not in impressions], moments)
        sites = [Site(layer, moments.get(layer.name), trust.get(layer.name, 1.0)) for layer in layers]
        choices = self._choose(model, sites, names, budget, feeds, context)
        if choices:
            self._apply(model, choices, feeds, impressions, context)

    def _moments(
        self,
        model: ir.Model,
        layers: Sequence[Layer],
        feeds: Sequence[Feeds],
        impressions: Mapping[str, Impressions],
        context: Context,
    ) -> dict[str, Moments]:
        if not self.observe:
            return {}
        known = {layer.name: seen(impressions[layer.name]) for layer in layers if layer.name in impressions}
        if not feeds:
            context.record.note("no inputs: the weights alone are fitted; synthesize-inputs or --data would do better")
            return known
        narrow = [layer for layer in layers if layer.matrix()[0].size <= _WIDEST and layer.name not in known]
        return observe(model, narrow, feeds, self.rows, context.rng()) | known

    def _choose(
        self,
        model: ir.Model,
        sites: Sequence[Site],
        names: Sequence[str],
        budget: Budget,
        feeds: Sequence[Feeds],
        context: Context,
    ) -> list[Choice]:
        before = measure(budget.unit, model, context.target, context.cost)
        wanted = before - budget.allowed(before)
        offered = offers(sites, names, budget.unit, context)
        if wanted <= 0 or not offered:
            if wanted <= 0:
                context.record.skip("model", f"it already costs no more than {budget}")
            return []
        weights = sensitivities(model, offered, feeds[:_TRIALS]) if feeds else [1.0] * len(offered)
        choices = choose(offered, weights, wanted)
        if choices is None:
            most = sum(max(o.savings) for o in offered)
            context.record.skip(
                "model", f"{budget} cannot be reached: all replacements together save {100 * most / before:.0f} %"
            )
            return []
        return choices

    def _apply(
        self,
        model: ir.Model,
        choices: Sequence[Choice],
        feeds: Sequence[Feeds],
        impressions: Mapping[str, Impressions],
        context: Context,
    ) -> None:
        taken = [
            choice
            for choice in choices
            if context.record.change(
                choice.site.node, f"{choice.candidate}, misses {100 * choice.candidate.error:.2g} % before training"
            )
        ]
        if self.train and taken:
            taken = self._trained(model, taken, feeds, impressions, context)
        for choice in taken:
            insert(model.graph, choice.site.layer, choice.candidate.pieces)
        shapes.infer(model)

    def _trained(
        self,
        model: ir.Model,
        choices: Sequence[Choice],
        feeds: Sequence[Feeds],
        impressions: Mapping[str, Impressions],
        context: Context,
    ) -> list[Choice]:
        """The replacements after blockwise training, without those that still miss more than the limit."""
        require_torch(self.name)
        if not feeds and not impressions:
            context.record.note("no inputs to train on: put synthesize-inputs before it, or give --data")
            return list(choices)
        kept = []
        errors = {}
        began = time.monotonic()
        trainings = train_all(model, choices, feeds, impressions, self.train, self.workers, context)
        seconds = time.monotonic() - began
        for choice, trained in trainings:
            if trained is None:
                kept.append(choice)
                continue
            name = str(choice.site.layer.output.name)
            errors[name] = [round(trained.before, 5), round(trained.after, 5)]
            if trained.after > self.limit:
                context.record.retract(
                    choice.site.node,
                    f"{choice.candidate} misses {100 * trained.after:.2g} % after training, limit {100 * self.limit:g}",
                )
            else:
                kept.append(choice)
        context.record.measures["training"] = {
            "held_out_error": errors,
            "samples": sum(len(next(iter(f.values()))) for f in feeds),
            "seconds": round(seconds, 1),
        }
        return correct(model, kept, feeds, self.correct, context) if self.correct and kept and feeds else kept


def _padded_by_size(node: ir.Node) -> bool:
    x, mode = node.inputs[0], attribute(node, "auto_pad", "NOTSET")
    known = x is not None and x.shape is not None and all(isinstance(d, int) for d in list(x.shape)[2:])
    return node.op_type == "Conv" and mode in ("SAME_UPPER", "SAME_LOWER") and not known


def _layers(model: ir.Model, pattern: str, context: Context) -> list[Layer]:
    """The layers that the pattern names and that are linear maps of one input."""
    found = []
    for block in partition(model, "layer"):
        if not block.anchors:
            continue
        node = block.anchors[0]
        if not (fnmatch.fnmatch(str(node.name), pattern) or fnmatch.fnmatch(str(node.outputs[0].name), pattern)):
            continue
        layer = layer_of(node)
        if layer is None:
            context.record.skip(node, "not a plain layer with constant weights of its own")
        elif layer.depthwise:
            context.record.skip(node, "depthwise already")
        elif _padded_by_size(node):
            context.record.skip(node, "its padding depends on the size of its input, which is not known")
        else:
            found.append(layer)
    if not found and not context.record.skips:
        context.record.skip("model", f"no layer is named like {pattern!r}")
    return found

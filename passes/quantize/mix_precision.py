"""`mix-precision`: 8 or 4 bits for the weights of each layer, as a budget asks, by what either costs the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ...errors import ModelError, VerificationError
from ...ir.cost import summary
from ...ir.graph import constant, is_constant, weight_bytes
from ...ir.probe import LARGEST_OBSERVED
from ..base import Pass
from ..budget import Budget, parse_budget
from ..context import Context, Feeds
from .calibration import noise_allowed
from .knapsack import Choice, Front
from .legality import weight_axis
from .quantize import Quantize
from .sensitivity import Noise, decibels, few_samples
from .type_choice import choose_types
from .weights import FORMATS, WeightFormat, weight_encoding, weight_levels

__all__ = ["MixPrecision"]

_SAMPLES = 2  # runs for each layer and format
_SHOWN = 24  # points of the front that the report keeps
_CHANNEL_BYTES = 9  # scale and zero point of the weights, scale of the bias
_OPTIONS: tuple[Literal["int4", "int8"], ...] = ("int4", "int8")
_FEW = WeightFormat(FORMATS["int4"], True, "squant", "mse")


@dataclass(frozen=True)
class MixPrecision(Pass):
    """Weights of a layer  ⇒  4 bits or 8, by size; a layer  ⇒  int8 or float32, by time: least noise in the outputs

    budget: `size=0.5MB` or `size=-80%` bounds the bytes of all constants, `drop=1%` the decisions that change, with the
    prediction's error on the safe side; that of the run (`--budget`) where none is given. The noise of every layer at
    either width is measured alone on synthesised inputs or the user's samples and adds up in power; the choice is an
    exact knapsack, and the front of size against noise is in the report. `pack-weights` stores the 4 bits.
    `latency=-60%` bounds the time of all layers with weights against that in float32, as `prefer-faster` knows it for
    CPUs, and leaves those layers in float that gain most by it. It is given here: `--budget latency=` prunes.
    """

    budget: str = ""
    name: ClassVar[str] = "mix-precision"
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.budget and parse_budget(self.budget).unit not in ("size", "drop", "latency"):
            raise ValueError("budget must be size=…, drop=… or latency=-…%")

    def run(self, model: ir.Model, context: Context) -> None:
        given = {b.unit: b for b in [parse_budget(self.budget)]} if self.budget else dict(context.budgets)
        units = ("size", "drop", "latency") if self.budget else ("size", "drop")
        budgets: dict[str, Budget] = {unit: given[unit] for unit in units if unit in given}
        feeds = list(context.data or context.synthetic or ())
        reason = _why_not(model, budgets, bool(feeds))
        if reason:
            context.record.skip("model", reason)
            return
        few = few_samples(model, feeds, _SAMPLES)
        try:
            if "latency" in budgets:
                choose_types(model, budgets["latency"], few, context)
                return
            table, rest = _measured(model, few, context)
        except ModelError as error:
            context.record.skip("model", f"it does not run: {error.what}")
            return
        names = list(table)
        front = Front([table[name] for name in names])
        fixed = _other_bytes(model, names)
        context.record.measures["front"] = _points(front, names, fixed, rest)
        before = float(summary(context.original or model).weight_bytes)
        chosen = _within(front, budgets, fixed, rest, before, bool(context.data))
        _apply(model, dict(zip(names, chosen, strict=True)), context)


def _why_not(model: ir.Model, budgets: Mapping[str, Budget], has_feeds: bool) -> str:
    if not budgets:
        return "no budget of size or drop to keep to"
    if not has_feeds:
        return "no inputs to measure on: none could be made, and no samples were given"
    return "the model is too large to be run here" if weight_bytes(model) > LARGEST_OBSERVED else ""


def _measured(model: ir.Model, feeds: Sequence[Feeds], context: Context) -> tuple[dict[str, list[Choice]], float]:
    """(bytes, noise at the worst output) of every layer with 4 and with 8 bits, and the noise of activations."""
    table: dict[str, list[Choice]] = {}
    rest = 0.0
    for bits in _OPTIONS:
        trial = model.clone()
        form = Quantize(weights="int4", rounding="squant", clipping="mse") if bits == "int4" else Quantize()
        form.run(trial, Context(target=context.target))
        noise = Noise(trial, model, feeds)
        sites = [s for s in noise.sites if s.kind == "weights"]
        rest = max(noise.of([s for s in noise.sites if s.kind != "weights"]).values(), default=0.0)
        nodes = {str(n.name): n for n in model.graph}
        for done, site in enumerate(sites):
            context.progress(f"measuring layers with {bits} weights", done / max(len(sites), 1))
            weight = constant(nodes[site.layer].inputs[1])
            assert weight is not None
            scales = _CHANNEL_BYTES * weight.shape[weight_axis(nodes[site.layer])]
            size = scales + (weight.size if bits == "int8" else -(-weight.size // 2))
            table.setdefault(site.layer, []).append((size, max(noise.of([site]).values())))
    return {layer: choices for layer, choices in table.items() if len(choices) == len(_OPTIONS)}, rest


def _other_bytes(model: ir.Model, names: Sequence[str]) -> int:
    """Bytes of every constant that is no weight of these layers."""
    weights = {n.inputs[1] for n in model.graph if n.name in set(names)}
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value and v not in weights)


def _within(
    front: Front, budgets: Mapping[str, Budget], fixed: int, rest: float, before: float, real: bool
) -> list[int]:
    """The choice that keeps to the budgets: least noise within the size, or least size within the noise."""
    steps = len(front.noise) - 1
    if "size" in budgets:
        allowed = budgets["size"].allowed(before) - fixed
        if allowed < front.base:
            raise VerificationError(
                f"4 bits in every layer leave {front.base + fixed:,} bytes, the budget is {budgets['size']}",
                where="pass mix-precision",
                hint="allow more, or remove channels too: --budget parameters=-40%",
            )
        return front.choices(min(int((allowed - front.base) // front.step), steps))
    most = noise_allowed(budgets["drop"].allowed(0.0), real)
    kept = np.flatnonzero(front.noise + rest <= most)
    return front.choices(int(kept[0]) if len(kept) else steps)


def _points(front: Front, names: Sequence[str], fixed: int, rest: float) -> list[dict[str, object]]:
    """The front, thinned: bytes of all constants, predicted SQNR of the worst output, and layers of 4 bits."""
    steps = front.points()
    kept = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _SHOWN)).round().astype(int))]
    found: list[dict[str, object]] = []
    for step in kept:
        choices = front.choices(step)
        noise = round(decibels(float(front.noise[step]) + rest), 2)
        found.append({"bytes": front.size(choices) + fixed, "sqnr_db": noise, "layers": choices.count(0)})
    return found


def _apply(model: ir.Model, chosen: Mapping[str, int], context: Context) -> None:
    for node in model.graph:
        if node.name not in chosen:
            continue
        if _OPTIONS[chosen[str(node.name)]] == "int8":
            context.record.skip(node, "8 bits: fewer would cost more than the budget asks for")
        elif context.record.change(node, "4 bits"):
            _round(node)


def _round(node: ir.Node) -> None:
    """Weights on the grid of 4 bits, with the encoding that `quantize` takes over."""
    value = node.inputs[1]
    weight = constant(value)
    assert weight is not None and value is not None and is_constant(value)
    axis = weight_axis(node)
    encoding = weight_encoding(weight, axis, ir.DataType.INT8, 1.0, None, _FEW.levels, _FEW.clipping)
    rounded = encoding.dequantize(weight_levels(weight, encoding, axis, _FEW))
    value.const_value = ir.Tensor(rounded, name=value.name)
    encoding.attach(value)

"""`equalize`: cross-layer equalisation, each channel's share of the range the same before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir import metadata
from ...ir.channels.atoms import IntArray
from ...ir.graph import constant
from ...ir.shapes import infer
from ..base import Pass
from ..context import Context
from .homogeneous import Layer, Scalable, scalable
from .preactivation import moments

__all__ = ["Equalize", "channel_scales"]

Floats = npt.NDArray[np.float64]
Matrix = tuple[Floats, IntArray, IntArray]

_SETTLED = 1e-3  # relative change of the scales at which a sweep is the last


@dataclass(frozen=True)
class Equalize(Pass):
    """f(x·W₁ + b₁)·W₂  ⇒  f((x·W₁ + b₁)/s)·sW₂ with s = √(max|W₁|/max|W₂|) per channel, f(s·x) = s·f(x)

    Chains and residual sums alike: all layers that write or read a channel share its s. Depthwise layers, pooling,
    Concat, Split and Reshape between them are passed.
    clips: also pass Clip(x, 0, u) where x is known, by channels that stay below u before and after; the others keep
    s = 1. Exact but for what is beyond μ + deviations·σ and all that was observed.
    limit: s stays within 1/limit … limit; sweeps: how often all scales are brought up to date at most.
    (Nagel et al. 2019, section 4.1)
    """

    limit: float = 1e4
    sweeps: int = 60
    clips: bool = False
    deviations: float = 8.0
    name: ClassVar[str] = "equalize"

    def __post_init__(self) -> None:
        if not self.limit >= 1 or self.sweeps < 1:
            raise ValueError("limit and sweeps must be at least 1")
        object.__setattr__(self, "exact", not self.clips)  # the one option that decides it

    def run(self, model: ir.Model, context: Context) -> None:
        infer(model)
        found = scalable(model, _reach(model, context, self.deviations) if self.clips else None)
        channels = len(found.state.atoms)
        least = np.full(channels, 1 / self.limit)
        for index, floor in found.floors:
            np.maximum.at(least, index, np.minimum(floor, 1.0))
        layers = [_magnitudes(layer) for layer in found.layers]
        scales = channel_scales(layers, channels, [*found.frozen], self.limit, self.sweeps, least)
        _account(found, scales, context)
        if np.any(scales != 1):
            _apply(found, scales)


def channel_scales(
    layers: Sequence[Matrix],
    channels: int,
    frozen: Sequence[int],
    limit: float = 1e4,
    sweeps: int = 60,
    least: Floats | None = None,
) -> Floats:
    """s of every channel such that Π max|rows|/s over its writers and Π s·max|columns| over its readers agree.

    layers: per layer |W| [M, N] with the channel of each row [M] and entry [M, N] (−1: none). Channels that are
    frozen, or without weights on either side, keep s = 1. Sweeps move half way, which settles on chains.
    least: lowest s of each channel, above 1/limit.
    """
    free = np.ones(channels, bool)
    free[list(frozen)] = False
    logs = np.zeros(channels)
    bound = np.log(limit)
    lowest = -bound if least is None else np.log(least)
    for _ in range(sweeps):
        wrote, read = _means(layers, logs, channels)
        usable = free & np.isfinite(wrote) & np.isfinite(read)
        step = np.where(usable, 0.5 * (np.where(usable, wrote, 0) - np.where(usable, read, 0)), 0.0)
        moved = np.clip(logs + 0.5 * step, lowest, bound)
        change, logs = float(np.abs(moved - logs).max(initial=0.0)), moved
        if change < _SETTLED / 2:
            break
    return np.exp(logs)


def _means(layers: Sequence[Matrix], logs: Floats, channels: int) -> tuple[Floats, Floats]:
    """Mean over writing and over reading layers of the logarithm of each channel's range; NaN where there is none."""
    sums, counts = np.zeros((2, channels)), np.zeros((2, channels))
    for magnitude, out, into in layers:
        scaled = magnitude * np.where(into >= 0, np.exp(logs[into]), 1.0) * np.exp(-logs[out])[:, None]
        columns = (into[0], scaled.max(0)) if (into == into[:1]).all() else (into, scaled)
        for side, (index, values) in enumerate(((out, scaled.max(1)), columns)):
            largest = np.full(channels + 1, -1.0)
            np.maximum.at(largest, index.ravel(), values.ravel())  # −1 falls into the last place
            there = largest[:channels] >= 0
            with np.errstate(divide="ignore"):
                sums[side, there] += np.log(largest[:channels][there])
            counts[side] += there
    with np.errstate(divide="ignore", invalid="ignore"):
        wrote, read = sums / counts
    return wrote, read


def _reach(model: ir.Model, context: Context, deviations: float) -> dict[str, Floats]:
    """How far each channel ahead of a Clip goes: μ + deviations·σ, or further where something further was observed."""
    sources = [n.inputs[0] for n in model.graph if n.op_type == "Clip" and not n.domain]
    known = moments(model, [v for v in sources if v is not None], context)
    return {name: np.asarray(np.maximum(m.mean + deviations * m.std, m.high)) for name, m in known.items()}


def _magnitudes(layer: Layer) -> Matrix:
    weight = constant(layer.weight)
    assert weight is not None
    return np.abs(layer.rows(np.asarray(weight, np.float64))).max(2, initial=0.0), layer.out, layer.into


def _account(found: Scalable, scales: Floats, context: Context) -> None:
    """One candidate a layer that writes channels; a channel's scale goes back to 1 where its change is refused."""
    seen: set[int] = set()
    for layer in found.layers:
        mine = np.unique(layer.out)
        moved = mine[np.abs(np.log(scales[mine])) > _SETTLED]
        fresh = [int(u) for u in moved if int(u) not in seen]
        if fresh:
            spread = f"{scales[fresh].min():.3g} … {scales[fresh].max():.3g}"
            if not context.record.change(layer.node, f"{len(fresh)} channels scaled by 1/s, s = {spread}"):
                scales[fresh] = 1.0
            seen.update(fresh)
        elif moved.size:
            context.record.skip(layer.node, "its channels are those of a layer before it, which the sum joins")
        else:
            context.record.skip(layer.node, found.frozen.get(int(mine[0]), "its ranges are equal already"))


def _apply(found: Scalable, scales: Floats) -> None:
    for layer in found.layers:
        weight, bias = constant(layer.weight), constant(layer.bias)
        assert weight is not None
        factor = np.where(layer.into >= 0, scales[layer.into], 1.0) / scales[layer.out][:, None]
        _set(layer.weight, layer.stored(layer.rows(np.asarray(weight, np.float64)) * factor[:, :, None]))
        if bias is not None and layer.bias is not None:
            _set(layer.bias, np.asarray(bias, np.float64) / scales[layer.out].reshape(bias.shape))
    for offset in found.offsets:
        array = constant(offset.value)
        assert array is not None
        shape = [1] * array.ndim
        shape[offset.axis] = -1
        _set(offset.value, np.asarray(array, np.float64) / scales[offset.channels].reshape(shape))
    for value, fields in found.state.fields.items():
        for known in fields:
            s = scales[found.state.atoms.find(known.atoms)]
            if np.any(s != 1):
                value.metadata_props.pop(metadata.EVIDENCE, None)  # the range it is about is no more
                _rescale_statistics(value, known.axes, s)


def _rescale_statistics(value: ir.Value, axes: tuple[int, ...], s: Floats) -> None:
    fact = metadata.get(value, metadata.STATISTICS)
    if fact is None:
        return
    if axes != (fact.get("axis", 1),):
        value.metadata_props.pop(metadata.STATISTICS)
        return
    mean, std = np.asarray(fact["mean"]) / s, np.asarray(fact["std"]) / s
    metadata.put(value, metadata.STATISTICS, fact | {"mean": mean, "std": std})


def _set(value: ir.Value, array: Floats) -> None:
    value.const_value = ir.Tensor(np.asarray(array, np.float32, order="C"), name=value.name)

"""How far a value may go beyond what was observed of it on inputs that only stand for real ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.graph import is_constant
from ...ir.statistics import Moments

__all__ = ["depths", "far", "growth", "pre_activation", "reach", "shared_extremes", "silent", "widened"]

Floats = npt.NDArray[np.float64]

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul"})
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_MOVED = frozenset({"Concat", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
# an extreme that so many channels share, to so much of the range, is the operator's own: GELU and Swish have one
_SHARING, _SAME, _FEWEST_CHANNELS = 0.25, 0.01, 8


def growth(seen: int, expected: float = 1e4) -> float:
    """√(ln expected / ln seen), at least 1: how much further the extreme of so many normal numbers lies than that of
    the few that were seen of a channel. Scores and pooled features are seen once a sample.
    """
    return max(float(np.sqrt(np.log(expected) / np.log(max(seen, 2)))), 1.0)


def widened(moments: Moments, seen: int | None, factor: float) -> tuple[float, float]:
    """max over channels of μ_c + k·(high_c − μ_c), and likewise down: k = factor · growth(seen · alike channels).

    What is not certain is how far inputs drive a channel from its mean; the mean itself, which outlier channels of
    transformers hold for every input, is. seen: numbers seen of each channel, None where that is not known. Channels
    that reach about as far are as many more draws of the extreme: Σd²/max d² of them, d = high_c − μ_c.
    """
    finite = np.isfinite(moments.low) & np.isfinite(moments.high) & np.isfinite(moments.mean)
    if not finite.any():
        return moments.range
    ends = []
    for mean, top in ((-moments.mean[finite], -moments.low[finite]), (moments.mean[finite], moments.high[finite])):
        reached = np.maximum(top - mean, 0.0)
        alike = float(np.square(reached / max(float(reached.max()), 1e-300)).sum())
        further = factor * (growth(int(seen * alike)) if seen else 1.0)
        ends.append(float(np.max(mean + further * reached)))
    low, high = moments.range
    return min(-ends[0], low), max(ends[1], high)


def silent(model: ir.Model, observed: Mapping[str, Moments]) -> bool:
    """True for a detector that found nothing: some output is made of probabilities, and none of them reaches 1/2.

    A classifier has to choose among its classes whatever it is shown, which drives the features behind its choice; a
    detector may stay still, and so do layers far ahead of its outputs.
    """
    outputs = [v for v in model.graph.outputs if str(v.name) in observed and _probability(v)]
    return any(observed[str(v.name)].range[1] < 0.5 for v in outputs)


def _probability(value: ir.Value) -> bool:
    node = value.producer()
    if node is None or node.op_type == "Sigmoid":
        return node is not None
    return node.op_type in _MOVED and node.inputs[0] is not None and _probability(node.inputs[0])


def pre_activation(value: ir.Value) -> ir.Value | None:
    """What a layer's weights and bias made of its input, where the value is that or a ReLU or Clip of it."""
    node = value.producer()
    if node is not None and node.op_type in ("Relu", "Clip"):
        source = node.inputs[0]
        return pre_activation(source) if source is not None and not _rectified(source) else None
    made = node
    if node is not None and node.op_type == "Add":
        found = [v.producer() for v in node.inputs if v is not None and not is_constant(v)]
        made = found[0] if len(found) == 1 else None
    linear = made is not None and made.op_type in _LINEAR and made.inputs[1] is not None and is_constant(made.inputs[1])
    return value if linear else None


def _rectified(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type in ("Relu", "Clip")


def depths(model: ir.Model) -> dict[ir.Value, float]:
    """How deep every value lies: weighted layers on the longest path to it as a share of the most on any path."""
    found: dict[ir.Value, int] = {}
    for node in model.graph:
        before = max((found.get(v, 0) for v in node.inputs if v is not None), default=0)
        found |= dict.fromkeys(node.outputs, before + (node.op_type in _WEIGHTED))
    most = max(found.values(), default=0)
    return {value: layers / most if most else 1.0 for value, layers in found.items()}


def far(peaks: Floats, samples: int, expected: float) -> float:
    """The highest of `expected` samples: E + s·√6/π·ln(expected·blocks/samples) of the peaks of blocks that share
    `samples` samples, at least the highest of them.

    Extremes follow Gumbel's law, whose location moves by its scale s·√6/π for every factor e in their number (Gumbel,
    "Statistics of extremes", 1958). Peaks that are all alike leave nothing to expect beyond them.
    """
    known = peaks[np.isfinite(peaks)]
    if len(known) < 2:
        return float(np.max(known, initial=-np.inf))
    scatter = float(known.std(ddof=1))
    further = max(np.log(expected * len(known) / max(samples, 1)), 0.0) if scatter else 0.0
    return float(max(known.max(), known.mean() + scatter * np.sqrt(6) / np.pi * further))


def shared_extremes(moments: Moments) -> tuple[bool, bool]:
    """Whether the lowest and the highest value are such that the operator stops there, not the inputs."""
    low, high = moments.range
    if len(moments.low) < _FEWEST_CHANNELS or not high > low:
        return False, False
    near_low = np.mean(moments.low - low <= _SAME * (high - low))
    near_high = np.mean(high - moments.high <= _SAME * (high - low))
    return bool(near_low >= _SHARING), bool(near_high >= _SHARING)


def reach(moments: Moments, silent: float = -np.inf, spreads: float = 4.0, typical: float = 2.0) -> tuple[float, float]:
    """μ_c ± `spreads`·max(σ_c, |μ_c|/`typical`) over all channels.

    A channel whose mean is far from 0 beside its spread was not excited: trained ones have |μ| ≲ 2σ on their own data
    (a detector's objectness is silent on inputs without objects), so its real spread is at least |μ|/2. Channels that
    never rise above `silent`, the bound of the ReLU behind them, are left out: training leaves many dead.
    """
    spread = spreads * np.maximum(moments.std, np.abs(moments.mean) / typical)
    finite = np.isfinite(spread) & (moments.high > silent)
    if not finite.any():
        return 0.0, 0.0
    return float((moments.mean - spread)[finite].min()), float((moments.mean + spread)[finite].max())

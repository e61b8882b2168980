"""How far a value may go beyond what was observed of it on inputs that only stand for real ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.statistics import Moments

__all__ = ["depths", "far", "growth", "reach", "shared_extremes"]

Floats = npt.NDArray[np.float64]

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul"})
# an extreme that so many channels share, to so much of the range, is the operator's own: GELU and Swish have one
_SHARING, _SAME, _FEWEST_CHANNELS = 0.25, 0.01, 8


def growth(seen: int, expected: float = 1e4) -> float:
    """√(ln expected / ln seen), at least 1: how much further the extreme of so many normal numbers lies than that of
    the few that were seen of a channel. Scores and pooled features are seen once a sample.
    """
    return max(float(np.sqrt(np.log(expected) / np.log(max(seen, 2)))), 1.0)


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
    further = max(np.log(expected * len(known) / max(samples, 1)), 0.0)
    return float(max(known.max(), known.mean() + known.std(ddof=1) * np.sqrt(6) / np.pi * further))


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

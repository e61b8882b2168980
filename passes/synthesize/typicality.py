"""How much the values inside a network look like those of a trained network on its own data.

Training leaves a trace in every bias: it centres the pre-activation of its channel, so that |mean| is seldom far above
the standard deviation, and neither is far above the bound at which activations saturate. Inputs of a wrong scale or
offset break the cancellation between the bias and W·E[x], layer after layer. Where BatchNorm statistics are
known the comparison is with them instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import constant, is_constant, only_consumer
from ...ir.probe import channel_axis
from ...ir.statistics import Moments

__all__ = [
    "IMPLAUSIBLE",
    "atypicality",
    "echoes",
    "odds",
    "pre_activations",
    "statistics_of",
    "stored_statistics",
    "unlikeness",
]

Statistics = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # mean and standard deviation of every channel

_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# what normalises by the very values it is given leaves their scale untold
_NORMALISERS = frozenset({"GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization"})
_SATURATION = 6.0  # ReLU6's bound: what practice takes as a large activation
IMPLAUSIBLE = 0.75  # an unrelated input scores 0.6 to 1 on trained networks: what is above is no better than noise
_PLAUSIBLE = 0.5
_PLACES = frozenset({"DepthToSpace", "Slice"})  # behind a transposed convolution that became a convolution
_DEAD = 1e-6  # a channel with less than this share of its layer's largest standard deviation says nothing


def pre_activations(model: ir.Model) -> list[ir.Value]:
    """The values that a bias or BatchNorm centres: results of linear operators, after a bias that is a node of its own.

    The graph's outputs are left out where there are others: logits need not be centred.
    """
    found = []
    for node in model.graph:
        if node.op_type not in _LINEAR or len(node.inputs) < 2 or not is_constant(node.inputs[1]):
            continue
        value = node.outputs[0]
        while (consumer := only_consumer(value)) is not None:
            bias = consumer.op_type == "Add" and any(is_constant(v) for v in consumer.inputs)
            if not bias and consumer.op_type != "BatchNormalization":
                break
            value = consumer.outputs[0]
        readers = list(_readers(value))
        normalised = bool(readers) and all(op in _NORMALISERS for op in readers)
        if value.shape is not None and len(value.shape) >= 2 and not normalised:
            found.append(value)
    inner = [v for v in found if not v.is_graph_output()]
    return inner or found


def _readers(value: ir.Value) -> Iterator[str]:
    """The operators that read a value, or its places put side by side."""
    for use in value.uses():
        if use.node.op_type in _PLACES:
            yield from _readers(use.node.outputs[0])
        else:
            yield use.node.op_type


def echoes(model: ir.Model, name: str) -> list[ir.Value]:
    """Outputs that are pictures of as many channels as the input: what is made looks like what is given."""
    given = next(v for v in model.graph.inputs if v.name == name)
    if given.shape is None or len(given.shape) != 4:
        return []
    axis, counted = 1 if given.shape[1] in (1, 3, 4) else 3, channel_axis(given)

    def alike(value: ir.Value) -> bool:
        shape = value.shape
        if shape is None or given.shape is None or len(shape) != 4 or shape[axis] != given.shape[axis]:
            return False
        # moments of the two can only be compared where they are counted along the same axis
        return counted is not None and channel_axis(value) == counted and shape[counted] == given.shape[counted]

    return [v for v in model.graph.outputs if alike(v)]


def statistics_of(values: Iterable[ir.Value]) -> dict[str, Statistics]:
    """What training left on the values, by name, of those that have it; read once for many comparisons."""
    return {str(v.name): found for v in values if (found := stored_statistics(v)) is not None}


def stored_statistics(value: ir.Value) -> Statistics | None:
    """Mean and standard deviation per channel that training left on the value: metadata, or a BatchNorm."""
    fact = metadata.get(value, metadata.STATISTICS)
    if fact is not None:
        return np.asarray(fact["mean"], np.float64), np.abs(np.asarray(fact["std"], np.float64))
    producer = value.producer()
    if producer is not None and producer.op_type == "BatchNormalization":
        scale, shift = constant(producer.inputs[1]), constant(producer.inputs[2])
        if scale is not None and shift is not None:
            return np.asarray(shift, np.float64), np.abs(np.asarray(scale, np.float64))
    return None


def atypicality(
    values: Sequence[ir.Value], observed: Mapping[str, Moments], stored: Mapping[str, Statistics]
) -> npt.NDArray[np.float64]:
    """One score per layer: 0 for a network in its element, about 1 and more for one fed with something else.

    Mean over channels of d²/(1+d²), bounded so that dead channels do not decide: d = mean/std without statistics,
    plus log(1 + (std/6)²) for pre-activations beyond any bound; with statistics μ, σ:
    d² = ((mean − μ)/σ)² + log²(std/σ). A layer without a live channel scores 1.
    """
    layers = []
    for value in values:
        moments = observed[str(value.name)]
        known = stored.get(str(value.name))
        live = _live(moments.std)
        if known is not None and known[0].shape == moments.mean.shape:
            live &= _live(known[1])
            mean, std = known[0][live], known[1][live]
            squared = ((moments.mean[live] - mean) / std) ** 2 + np.log(moments.std[live] / std) ** 2
            saturated = np.zeros_like(squared)
        else:
            squared = (moments.mean[live] / moments.std[live]) ** 2
            saturated = np.log1p((moments.std[live] / _SATURATION) ** 2)
        layers.append(float(np.mean(squared / (1 + squared) + saturated)) if live.any() else 1.0)
    return np.asarray(layers)


def unlikeness(given: Moments, made: Sequence[Moments]) -> npt.NDArray[np.float64]:
    """One score per picture made: how far its channels' mean and deviation are from those of the picture given, by the
    measure that `atypicality` has for known statistics.
    """
    layers = []
    for moments in made:
        live = _live(given.std) & _live(moments.std)
        mean, std = given.mean[live], given.std[live]
        squared = ((moments.mean[live] - mean) / std) ** 2 + np.log(moments.std[live] / std) ** 2
        layers.append(float(np.mean(squared / (1 + squared))) if live.any() else 1.0)
    return np.asarray(layers)


def _live(std: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    top = float(np.max(std[np.isfinite(std)], initial=0.0))
    live: npt.NDArray[np.bool_] = np.isfinite(std) & (std > max(_DEAD * top, 1e-30))
    return live


def odds(best: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """How likely the other scores are the right ones, beside the best: e^(−z²/2), z the mean difference over layers in
    its standard errors; 0 where a layer is saturated (above 1) with the other and plausible with the best.

    Scores s count as s/(1 + s), so that the few layers that saturate beyond measure do not hide what all others say.
    Neighbouring layers say much the same: their covariances up to √n apart count (Newey and West 1987).
    """
    if np.any((other > 1) & (best < _PLAUSIBLE)):
        return 0.0
    difference = other / (1 + other) - best / (1 + best)
    if difference.mean() <= 0:
        return 1.0
    n, rest = len(difference), difference - difference.mean()
    lags = int(np.sqrt(n)) + 1
    covariances = [float(rest[k:] @ rest[: n - k]) / n for k in range(min(lags, n))]
    variance = sum((1 if k == 0 else 2 * (1 - k / lags)) * c for k, c in enumerate(covariances)) / n
    return float(np.exp(-0.5 * difference.mean() ** 2 / max(variance, 1e-12)))

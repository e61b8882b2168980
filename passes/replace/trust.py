"""How far the covariance that a layer's inputs were seen to have can be believed: as far as they excite the layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.layers import Layer
from ..prune.evidence import Moments
from ..synthesize.centred import centred

__all__ = ["excitement", "trusts"]

Floats = npt.NDArray[np.floating]


def trusts(layers: Sequence[Layer], moments: Mapping[str, Moments]) -> dict[str, float]:
    """Trust in the moments of every layer's inputs, 0 to 1, by the name of its weight.

    A linear bottleneck averages 0, so that its bias says nothing of its deviation: what reads it does.
    """
    known = [layer for layer in layers if layer.name in moments]
    own = {layer.name: _excitement(layer, moments[layer.name]) for layer in known}
    read = {layer.node.inputs[0]: own[layer.name] for layer in known}
    found = dict(own)
    for layer in known:
        if centred(layer.output) is not None:
            readers = [read[value] for value in _sums_of(layer.output) if value in read]
            found[layer.name] = min([own[layer.name], *readers])
    return found


def excitement(weight: Floats, bias: Floats, mean: Floats, covariance: Floats) -> float:
    """`min(1, Σ var yⱼ / Σ E[yⱼ]²)` of y = W·x + b: what inputs show of the variance that training had.

    Training leaves a channel's mean seldom above its deviation; inputs that show less variance than that leave the
    layer idle, and their covariance is that of the few directions that they reach.
    """
    power = float(np.sum((weight @ mean + bias) ** 2))
    variance = float(np.sum((weight @ covariance) * weight))
    return min(variance / power, 1.0) if power > 0 else 1.0


def _excitement(layer: Layer, moments: Moments) -> float:
    matrix = layer.matrix()
    return excitement(matrix.reshape(len(matrix), -1), layer.offset(), moments.mean, moments.covariance)


def _sums_of(value: ir.Value) -> list[ir.Value]:
    """The value and the sums that it is a part of."""
    found = [value]
    for current in found:
        adds = [use.node for use in current.uses() if use.node.op_type == "Add"]
        found += [node.outputs[0] for node in adds if node.outputs[0] not in found]
    return found

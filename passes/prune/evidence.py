"""What the layers' inputs look like: their means and covariances, and how far these can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.graph import is_constant, only_consumer
from ...ir.layers import Floats, Layer, layer_of, sample_rows
from ...ir.propagate import propagated
from ...ir.walk import Walk
from ..synthesize.typicality import stored_statistics

__all__ = ["Moments", "expected", "moments_of", "observe", "scale_known"]

Array = npt.NDArray[np.generic]
Feeds = Sequence[Mapping[str, Array]]

_MANY = 1 << 20  # samples that moments count for which training took


@dataclass(frozen=True)
class Moments:
    """Mean [n] and covariance [n, n] of a layer's feature rows, over how many rows.

    energy: variance of the layer's output, summed over channels; behind the residual Add where there is one, since an
    error counts against the stream that it joins.
    """

    mean: Floats
    covariance: Floats
    samples: int
    energy: float

    def ridge(self, least: float) -> float:
        """The ridge to solve with, in units of the mean variance: n/samples more than asked for (see `refit`)."""
        return least + len(self.mean) / self.samples


def scale_known(layer: Layer) -> bool:
    """Whether training left mean and deviation of everything between a layer's inputs and the layers before it."""
    waiting = [layer.node.inputs[0]]
    while waiting:
        value = waiting.pop()
        node = None if value is None else value.producer()
        if value is None or is_constant(value) or stored_statistics(value) is not None:
            continue
        if node is None or layer_of(node) is not None:
            return False
        waiting += node.inputs
    return True


def observe(
    model: ir.Model, layers: Sequence[Layer], feeds: Feeds, rows: int, rng: np.random.Generator
) -> dict[str, Moments]:
    """Mean and covariance of the feature rows of every layer, by the name of its weight."""
    wanted = [(layer, _seen(layer)) for layer in layers]
    walk = Walk(model, feeds, held={v for _, values in wanted for v in values})  # layers may join before both are seen
    found = {}
    for done, (layer, values) in enumerate(wanted):
        inputs, outputs, stream = walk.get(values)
        x = feature_rows(layer, inputs, [outputs], rows, rng)[0]
        found[layer.name] = moments_of(x, _energy(layer, stream))
        walk.held = {v for _, later in wanted[done + 1 :] for v in later}
        walk.release(set())
    return found


def moments_of(rows: Floats, energy: float) -> Moments:
    """Moments of feature rows [rows, n]."""
    mean = rows.mean(0, dtype=np.float64)
    centred = rows - mean.astype(rows.dtype)
    return Moments(mean, np.asarray(centred.T @ centred, np.float64) / len(rows), len(rows), energy)


def expected(model: ir.Model, layers: Sequence[Layer]) -> dict[str, Moments]:
    """Moments by what BatchNorm left, without any inputs, where it reaches a layer: all inputs independent."""
    known = propagated(model, 0.0)
    found = {}
    for layer in layers:
        source = layer.node.inputs[0]
        if source is not None and source in known:
            mean, deviation = (np.repeat(a, layer.matrix().shape[2]) for a in (known[source].mean, known[source].std))
            found[layer.name] = Moments(mean, np.diag(deviation**2), _MANY, 1.0)
    return found


def _seen(layer: Layer) -> list[ir.Value]:
    """What is read of a layer: its input, its output, and the sum behind a residual Add."""
    source, add = layer.node.inputs[0], only_consumer(layer.output)
    assert source is not None
    return [source, layer.node.outputs[0], add.outputs[0] if add is not None and add.op_type == "Add" else layer.output]


def _energy(layer: Layer, values: Sequence[Array]) -> float:
    stacked = np.concatenate([np.asarray(v, np.float32) for v in values])
    axis = 1 if layer.node.op_type == "Conv" else stacked.ndim - 1
    return float(stacked.var(tuple(a for a in range(stacked.ndim) if a != axis), dtype=np.float64).sum())


def feature_rows(
    layer: Layer, inputs: Sequence[Array], outputs: Sequence[Sequence[Array]], rows: int, rng: np.random.Generator
) -> tuple[Floats, list[Floats]]:
    """Matching rows of a layer's inputs and of values shaped like its outputs, sampled evenly over the feeds."""
    width = layer.matrix().shape[0]
    share = -(-rows // len(inputs))
    picked = [sample_rows(y.size // width, share, rng) for y in outputs[0]]
    x = np.concatenate([layer.rows(np.asarray(a, np.float32), c) for a, c in zip(inputs, picked, strict=True)])
    found = [
        np.concatenate([layer.outputs(np.asarray(a, np.float32), c) for a, c in zip(value, picked, strict=True)])
        for value in outputs
    ]
    return x, found

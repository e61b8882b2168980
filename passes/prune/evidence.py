"""What the layers' inputs look like: a teacher whose activations have the moments of training, and covariances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.graph import initializer, is_constant, only_consumer
from ...ir.layers import Floats, Layer, layer_of, sample_rows
from ...ir.propagate import propagated
from ...ir.walk import Walk
from ..synthesize.centred import borne_out, centred

__all__ = ["Moments", "Stored", "expected", "moments_of", "observe", "renormalise", "scale_known"]

Array = npt.NDArray[np.generic]
Feeds = Sequence[Mapping[str, Array]]
Stored = Callable[[ir.Value], tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None]

_MANY = 1 << 20  # samples that moments count for which training took
_GAIN = 5.0  # a channel this far off is not excited by the inputs at all: scaling it further would amplify noise


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


def renormalise(model: ir.Model, feeds: Feeds, stored: Stored) -> int:
    """v ← a·v + b per channel after every value whose trained mean and deviation are known, in place; how many.

    With a and b fixed on the feeds, layer by layer, every layer sees inputs whose first two moments are those of the
    training data; where only the mean is known, to be 0 (`centred`), a is 1. The same fixed a and b then serve the
    pruned copy, so that both see the same perturbation.
    """
    walk = Walk(model, feeds)
    count = 0
    for node in list(model.graph):
        value = node.outputs[0]
        known, bias = stored(value), centred(value)
        if (known is None and bias is None) or value.is_graph_output():
            continue
        observed = np.concatenate([np.asarray(a) for a in walk.get([value])[0]])
        axes = tuple(a for a in range(observed.ndim) if a != 1)
        is_mean, is_deviation = observed.mean(axes, dtype=np.float64), observed.std(axes, dtype=np.float64)
        if known is None and bias is not None and borne_out(is_mean, bias):
            known = np.zeros_like(is_mean), is_deviation
        if known is None or known[0].shape != is_mean.shape:
            continue
        mean, deviation = known
        gain = np.clip(deviation / np.maximum(is_deviation, 1e-12), 1 / _GAIN, _GAIN)
        _insert(model.graph, node, gain, mean - gain * is_mean, count)
        walk.refresh(model)
        walk.release(set())
        count += 1
    return count


def scale_known(layer: Layer, stored: Stored) -> bool:
    """Whether training left mean and deviation of everything between a layer's inputs and the layers before it."""
    waiting = [layer.node.inputs[0]]
    while waiting:
        value = waiting.pop()
        node = None if value is None else value.producer()
        if value is None or is_constant(value) or stored(value) is not None:
            continue
        if node is None or layer_of(node) is not None:
            return False
        waiting += node.inputs
    return True


def _insert(graph: ir.Graph, node: ir.Node, gain: Floats, shift: Floats, number: int) -> None:
    value = node.outputs[0]
    assert value.shape is not None
    shape = (-1, *[1] * (len(value.shape) - 2))
    uses = list(value.uses())
    scale = initializer(graph, f"renormalise_gain_{number}", gain.astype(np.float32).reshape(shape))
    offset = initializer(graph, f"renormalise_shift_{number}", shift.astype(np.float32).reshape(shape))
    scaled = ir.Node("", "Mul", [value, scale], name=f"renormalise_mul_{number}")
    shifted = ir.Node("", "Add", [scaled.outputs[0], offset], name=f"renormalise_add_{number}")
    for made in (scaled, shifted):
        made.outputs[0].name = f"{made.name}_out"
        made.outputs[0].shape, made.outputs[0].type = value.shape, value.type
    graph.insert_after(node, [scaled, shifted])
    for use in uses:
        use.node.replace_input_with(use.idx, shifted.outputs[0])


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

"""Refit a pruned model without labels: layer by layer, the original's outputs from what is left of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.channels import Channels
from ...ir.layers import Floats, Layer, layer_of
from ...ir.walk import Walk
from .endpoint import endpoint
from .evidence import feature_rows
from .reconstruct import refit

__all__ = ["compensate"]

Array = npt.NDArray[np.generic]


def compensate(
    original: ir.Model,
    pruned: ir.Model,
    channels: Channels,
    removed: npt.NDArray[np.int64],
    feeds: Sequence[Mapping[str, Array]],
    ridge: float,
    rows: int,
    rng: np.random.Generator,
    progress: Callable[[str, float], None],
) -> list[str]:
    """Refit the linear layers of `pruned` in order, in place; the names of the weights that changed.

    Inputs are those of the pruned model so far, so that a layer also makes up for the errors of the layers before it;
    the wanted output is the original's, at the residual Add where the layer ends in one. `channels` are those of
    `original`, whose values have the same names.
    """
    theirs, ours = Walk(original, feeds), Walk(pruned, feeds)
    named = {str(v.name): v for node in original.graph for v in node.outputs}
    changed = []
    nodes = list(pruned.graph)
    for done, node in enumerate(nodes):
        progress("refitting layers", done / len(nodes))
        layer = layer_of(node)
        if layer is None:
            continue
        end = endpoint(layer, lambda v: not any(layer_of(n) is not None for n in ours.missing(v)))
        target = named[str(end.value.name)]
        axis = 1 if node.op_type == "Conv" else len(target.shape or ()) - 1
        values = [[_kept(channels, target, axis, removed, a) for a in theirs.get([target])[0]]]
        if end.other is not None:
            values.append(ours.get([end.other])[0])
        source = node.inputs[0]
        assert source is not None
        x, (z, *other) = feature_rows(layer, ours.get([source])[0], values, rows, rng)
        y, *within = end.intervals(z, other[0] if other else None)
        clipped = np.isfinite([end.low, end.high]).any()
        if _store(layer, x, y, ridge, (within[0], within[1]) if clipped else None):
            changed.append(layer.name)
        theirs.release(set())
        ours.release(set())
    return changed


def _kept(channels: Channels, value: ir.Value, axis: int, removed: npt.NDArray[np.int64], array: Array) -> Array:
    found = channels.labels.at(value, axis)
    return array if found is None else np.compress(channels.keeps(found, removed), array, axis)


def _store(layer: Layer, x: Floats, y: Floats, ridge: float, within: tuple[Floats, Floats] | None) -> bool:
    weight, offset = layer.matrix(), layer.offset()
    if layer.depthwise:
        fits = [
            refit(
                weight[k],
                offset[k : k + 1],
                x[:, k],
                y[:, k : k + 1],
                ridge,
                None if within is None else (within[0][:, k : k + 1], within[1][:, k : k + 1]),
            )
            for k in range(len(weight))
        ]
        fitted, bias = np.stack([w for w, _ in fits]), np.concatenate([b for _, b in fits])
    else:
        flat, bias = refit(weight.reshape(len(weight), -1), offset, x, y, ridge, within)
        fitted = flat.reshape(weight.shape)
    if not layer.has_offset:
        bias = offset
    if not (np.isfinite(fitted).all() and np.isfinite(bias).all()):
        return False
    layer.store(fitted, bias)
    return True

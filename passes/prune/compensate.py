"""Refit a pruned model without labels: layer by layer, the original's outputs from what is left of the inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.channels import Channels
from ...ir.graph import is_constant, only_consumer
from .evidence import feature_rows
from .layers import Floats, Layer, layer_of
from .reconstruct import refit
from .walk import Walk

__all__ = ["compensate"]

Array = npt.NDArray[np.generic]


def compensate(
    original: ir.Model,
    pruned: ir.Model,
    channels: Channels,
    removed: npt.NDArray[np.int64],
    feeds: Sequence[Mapping[str, Array]],
    *,
    ridge: float,
    rows: int,
    rng: np.random.Generator,
) -> list[str]:
    """Refit the linear layers of `pruned` in order, in place; the names of the weights that changed.

    Inputs are those of the pruned model so far, so that a layer also makes up for the errors of the layers before it;
    the wanted output is the original's, at the residual Add where the layer ends in one. `channels` are those of
    `original`, whose values have the same names.
    """
    theirs, ours = Walk(original, feeds), Walk(pruned, feeds)
    named = {str(v.name): v for node in original.graph for v in node.outputs}
    changed = []
    for node in list(pruned.graph):
        layer = layer_of(node)
        if layer is None:
            continue
        matched, other = _match(layer, ours)
        target = named[str(matched.name)]
        axis = 1 if node.op_type == "Conv" else len(target.shape or ()) - 1
        wanted = [_kept(channels, target, axis, removed, a) for a in theirs.get([target])[0]]
        if other is not None:
            wanted = [w - o for w, o in zip(wanted, ours.get([other])[0], strict=True)]  # type: ignore[operator]
        source = node.inputs[0]
        assert source is not None
        x, y = feature_rows(layer, ours.get([source])[0], wanted, rows, rng)
        if _store(layer, x, y, ridge):
            changed.append(layer.name)
        theirs.release(set())
        ours.release(set())
    return changed


def _match(layer: Layer, walk: Walk) -> tuple[ir.Value, ir.Value | None]:
    """Where to compare: behind the Add of a residual connection when its other operand is known first."""
    add = only_consumer(layer.output)
    if add is not None and add.op_type == "Add" and not add.outputs[0].is_graph_output():
        other = next((v for v in add.inputs if v is not layer.output), None)
        alike = other is not None and not is_constant(other) and other.shape == layer.output.shape
        if other is not None and alike and not walk.depends(other, layer.node):
            return add.outputs[0], other
    return layer.output, None


def _kept(channels: Channels, value: ir.Value, axis: int, removed: npt.NDArray[np.int64], array: Array) -> Array:
    found = channels.labels.at(value, axis)
    return array if found is None else np.compress(channels.keeps(found, removed), array, axis)


def _store(layer: Layer, x: Floats, y: Floats, ridge: float) -> bool:
    weight, offset = layer.matrix(), layer.offset()
    if layer.depthwise:
        fits = [refit(weight[k], offset[k : k + 1], x[:, k], y[:, k : k + 1], ridge) for k in range(len(weight))]
        fitted, bias = np.stack([w for w, _ in fits]), np.concatenate([b for _, b in fits])
    else:
        flat, bias = refit(weight.reshape(len(weight), -1), offset, x, y, ridge)
        fitted = flat.reshape(weight.shape)
    if not layer.has_offset:
        bias = offset
    if not (np.isfinite(fitted).all() and np.isfinite(bias).all()):
        return False
    layer.store(fitted, bias)
    return True

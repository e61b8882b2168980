"""Remove channels from a model, physically; or set them to zero, which must give the same outputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ModelError
from .. import metadata
from ..graph import constant, is_constant
from .groups import Channels
from .labelling import Field
from .update import UPDATES, Removal

__all__ = ["remove", "zero"]

# operator -> inputs whose per-channel values may be zeroed without dividing by zero or changing the meaning of zero
_ZEROED = {"BatchNormalization": (1, 2), "InstanceNormalization": (1, 2), "Add": (0, 1), "Mul": (0, 1)}


def remove(model: ir.Model, channels: Channels, removed: npt.ArrayLike) -> None:
    """Cut the units `removed` (entries of `Group.units`) out of every tensor, attribute and shape constant.

    `channels` must come from `analyze(model)` and is stale afterwards. ModelError when a value would lose all channels:
    see `Channels.spare`.
    """
    units = np.asarray(removed, np.int64).ravel()
    if len(channels.spare(units)) < len(np.unique(units)):
        what = "the removal would leave a value without any channel"
        raise ModelError(what, where=str(model.graph.name), hint="pass the units through Channels.spare first")
    removal = Removal(model.graph, channels, units)
    for node in model.graph:
        update = UPDATES.get(node.op_type)
        if update is not None and any(channels.labels.of(v) for v in (*node.inputs, *node.outputs)):
            update(node, removal)
    for value, fields in list(channels.labels.fields.items()):
        for found in fields:
            for axis in found.axes:
                keeps = removal.axis_mask(found, axis)
                if not keeps.all():
                    _shrink(model.graph, value, axis, keeps)


def _shrink(graph: ir.Graph, value: ir.Value, axis: int, keeps: npt.NDArray[np.bool_]) -> None:
    if is_constant(value):
        contents = constant(value)
        assert contents is not None
        _set_constant(graph, value, np.ascontiguousarray(np.compress(keeps, contents, axis)))
    elif value.shape is not None:
        shape = list(value.shape)
        shape[axis] = int(keeps.sum())
        value.shape = ir.Shape(shape)
    facts = metadata.get(value, metadata.STATISTICS)
    if facts is not None and facts.get("axis", 1) == axis:
        for key in ("mean", "std"):
            if isinstance(facts.get(key), list) and len(facts[key]) == len(keeps):
                facts[key] = np.asarray(facts[key])[keeps]
        metadata.put(value, metadata.STATISTICS, facts)


def _set_constant(graph: ir.Graph, value: ir.Value, contents: npt.NDArray[np.generic]) -> None:
    """New contents under the same name; a Constant node becomes an initialiser."""
    tensor = ir.Tensor(contents, name=value.name)
    producer = value.producer()
    if producer is None:
        value.const_value = tensor
        value.shape = ir.Shape(contents.shape)
        return
    made = ir.Value(name=value.name, const_value=tensor, shape=ir.Shape(contents.shape), type=value.type)
    ir.convenience.replace_all_uses_with(value, made)
    graph.remove(producer)
    graph.register_initializer(made)


def zero(model: ir.Model, channels: Channels, removed: npt.ArrayLike) -> None:
    """Set what produces and what consumes the units to zero, in place; shapes stay."""
    units = np.asarray(removed, np.int64).ravel()
    for value, fields in list(channels.labels.fields.items()):
        if not is_constant(value):
            continue
        for found in fields:
            keeps = channels.keeps(found, units)
            if not keeps.all() and (found.role in ("in", "out") or _zeroable(value)):
                contents = constant(value)
                assert contents is not None
                masked = contents * _mask(found, keeps, contents.ndim).astype(contents.dtype)
                _set_constant(model.graph, value, masked)


def _zeroable(value: ir.Value) -> bool:
    return all(use.idx in _ZEROED.get(use.node.op_type, ()) for use in value.uses())


def _mask(found: Field, keeps: npt.NDArray[np.bool_], rank: int) -> npt.NDArray[np.bool_]:
    return np.expand_dims(keeps, [i for i in range(rank) if i not in found.axes])

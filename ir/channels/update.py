"""Operator attributes and shape constants that state a number of channels, rewritten after a removal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..graph import attribute, constant, initializer, static_shape
from .groups import Channels
from .labelling import Field
from .movement import pad_amounts, slice_index

__all__ = ["UPDATES", "Removal"]

Mask = npt.NDArray[np.bool_]


@dataclass
class Removal:
    """A removal under way: which positions of each value stay, and the sizes before it."""

    graph: ir.Graph
    channels: Channels
    removed: npt.NDArray[np.int64]
    made: int = 0

    def mask(self, value: ir.Value | None, axis: int) -> Mask | None:
        """Which positions along an axis stay; None when the axis keeps all of them."""
        found = self.channels.labels.at(value, axis)
        if found is None:
            return None
        keeps = self.axis_mask(found, axis)
        return None if keeps.all() else keeps

    def axis_mask(self, found: Field, axis: int) -> Mask:
        """The kept slices along one axis of a field; kept positions are always a product of such sets."""
        keeps = self.channels.keeps(found, self.removed)
        others = tuple(i for i, a in enumerate(found.axes) if a != axis)
        return np.asarray(keeps.any(axis=others))

    def constant(self, stem: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """A new initialiser with a free name."""
        while f"{stem}_{self.made}" in self.graph.initializers:
            self.made += 1
        return initializer(self.graph, f"{stem}_{self.made}", array)


def _conv(node: ir.Node, removal: Removal) -> None:
    group = int(attribute(node, "group", 1))  # type: ignore[call-overload]
    weight = node.inputs[1]
    shape = static_shape(weight)
    if group == 1 or shape is None:
        return
    x_mask = removal.mask(node.inputs[0], 1)
    width = shape[0] // group if node.op_type == "ConvTranspose" else shape[1]
    if width == 1 and x_mask is not None:
        node.attributes["group"] = ir.AttrInt64("group", int(x_mask.sum()))


def _split(node: ir.Node, removal: Removal) -> None:
    x = node.inputs[0]
    assert x is not None and x.shape is not None
    axis = int(attribute(node, "axis", 0)) % len(x.shape)  # type: ignore[call-overload]
    if removal.mask(x, axis) is None:
        return
    sizes = []
    for output in node.outputs:
        keeps = removal.mask(output, axis)
        assert output.shape is not None
        sizes.append(int(output.shape[axis]) if keeps is None else int(keeps.sum()))
    if "split" in node.attributes:
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
        return
    if _opset(removal.graph) < 13:
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
        return
    node.attributes.pop("num_outputs", None)
    node.resize_inputs(2)
    node.replace_input_with(1, removal.constant("split_sizes", np.array(sizes, np.int64)))


def _opset(graph: ir.Graph) -> int:
    return graph.opset_imports.get("", 13)


def _slice(node: ir.Node, removal: Removal) -> None:
    x = node.inputs[0]
    assert x is not None and x.shape is not None
    rank = len(x.shape)
    bounds = slice_index(node, rank) or {}
    cut = [a for a in bounds if removal.mask(x, a) is not None]
    if not cut:
        return
    starts, ends, steps = [], [], []
    for axis, part in bounds.items():
        keeps = removal.mask(x, axis)
        if keeps is None:
            starts.append(part.start)
            ends.append(np.iinfo(np.int64).max if part.stop is None and (part.step or 1) > 0 else part.stop)
            steps.append(part.step or 1)
            if part.stop is None and steps[-1] < 0:
                ends[-1] = np.iinfo(np.int64).min
            continue
        new_position = np.cumsum(keeps) - 1
        taken = np.arange(len(keeps))[part]
        left = new_position[taken[keeps[taken]]]
        step = int(left[1] - left[0]) if len(left) > 1 else 1
        assert (np.diff(left) == step).all(), "kept channels of a strided slice are not evenly spaced"
        starts.append(int(left[0]))
        stop = int(left[-1]) + (1 if step > 0 else -1)
        ends.append(stop if stop >= 0 else np.iinfo(np.int64).min)
        steps.append(step)
    axes = list(bounds)
    if "starts" in node.attributes:
        for name, values in (("starts", starts), ("ends", ends), ("axes", axes)):
            node.attributes[name] = ir.AttrInt64s(name, values)
        return
    node.resize_inputs(5)
    for i, values in enumerate((starts, ends, axes, steps), 1):
        node.replace_input_with(i, removal.constant("slice_bounds", np.array(values, np.int64)))


def _gather(node: ir.Node, removal: Removal) -> None:
    x, index = node.inputs
    assert x is not None and x.shape is not None
    axis = int(attribute(node, "axis", 0)) % len(x.shape)  # type: ignore[call-overload]
    keeps = removal.mask(x, axis)
    known = constant(index)
    if keeps is None or known is None:
        return
    new_position = np.cumsum(keeps) - 1
    indices = np.asarray(known, np.int64)
    indices = np.where(indices < 0, indices + len(keeps), indices)
    left = new_position[indices[keeps[indices]]] if indices.ndim else new_position[indices]
    node.replace_input_with(1, removal.constant("gather_indices", left.astype(np.int64)))


def _pad(node: ir.Node, removal: Removal) -> None:
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None and x.shape is not None
    rank = len(x.shape)
    amounts = pad_amounts(node, rank) or []
    new = list(amounts)
    for axis, (before, after) in enumerate(amounts):
        keeps = removal.mask(y, axis)
        if keeps is not None and (before or after):
            new[axis] = (int(keeps[:before].sum()), int(keeps[len(keeps) - after :].sum()))
    if new == amounts:
        return
    flat = [b for b, _ in new] + [a for _, a in new]
    if "pads" in node.attributes:
        node.attributes["pads"] = ir.AttrInt64s("pads", flat)
        return
    node.replace_input_with(1, removal.constant("pads", np.array(flat, np.int64)))
    if len(node.inputs) > 3:
        node.replace_input_with(3, None)


def _shape_operand(node: ir.Node, removal: Removal) -> None:
    """Write the new sizes into the target shape: a constant, or the constant parts of a Concat."""
    y, target = node.outputs[0], node.inputs[1]
    assert y.shape is not None and target is not None
    masks = {a: m for f in removal.channels.labels.of(y) for a in f.axes if (m := removal.mask(y, a)) is not None}
    if not masks:
        return
    sizes = {a: int(m.sum()) for a, m in masks.items()}
    known = constant(target)
    if known is not None:
        x = node.inputs[0]
        new = [_resized(int(s), a, sizes, node, x, removal) for a, s in enumerate(known.ravel())]
        node.replace_input_with(1, removal.constant("shape", np.array(new, np.int64)))
        return
    producer = target.producer()
    assert producer is not None and producer.op_type == "Concat", "the target shape is neither constant nor a Concat"
    parts: list[ir.Value | None] = []
    axis = 0
    for part in producer.inputs:
        shape, contents = static_shape(part), constant(part)
        assert part is not None and shape is not None
        count = shape[0]
        if contents is not None and any(a in sizes for a in range(axis, axis + count)):
            new = [sizes.get(axis + i, s) if s > 0 else s for i, s in enumerate(contents.ravel().tolist())]
            part = removal.constant("shape_part", np.array(new, np.int64))
        parts.append(part)
        axis += count
    made = ir.Node("", "Concat", parts, attributes=[ir.AttrInt64("axis", 0)], name=f"{node.name or y.name}_shape")
    made.outputs[0].name = f"{y.name}_new_shape"
    made.outputs[0].shape, made.outputs[0].type = target.shape, target.type
    removal.graph.insert_before(node, made)
    node.replace_input_with(1, made.outputs[0])


def _resized(
    size: int, axis: int, sizes: Mapping[int, int], node: ir.Node, x: ir.Value | None, removal: Removal
) -> int:
    """A 0 copies the input's size, which shrinks by itself when the axis is carried over; −1 is inferred."""
    if axis not in sizes or size == -1:
        return size
    if size == 0 and not attribute(node, "allowzero", 0) and removal.mask(x, axis) is not None:
        return 0
    return sizes[axis]


def _recurrent(node: ir.Node, removal: Removal) -> None:
    keeps = removal.mask(node.inputs[2], 2)
    if keeps is not None and "hidden_size" in node.attributes:
        node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", int(keeps.sum()))


def _resize(node: ir.Node, removal: Removal) -> None:
    keeps = removal.mask(node.outputs[0], 1)
    sizes = constant(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    if keeps is not None and sizes is not None and attribute(node, "axes") is None:
        new = sizes.copy()
        new[1] = keeps.sum()
        node.replace_input_with(3, removal.constant("sizes", new))


UPDATES: Mapping[str, Callable[[ir.Node, Removal], None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _shape_operand,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Resize": _resize,
}

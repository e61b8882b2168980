"""Channel rules of operators that keep every channel where it is, or act along one axis."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..graph import attribute, is_constant
from .atoms import IntArray
from .labelling import Field, Labelling
from .movement import axes_of

__all__ = ["along_axis", "broadcast", "layer_norm", "pass_through", "quantize", "reduce", "spatial"]


def pass_through(node: ir.Node, state: Labelling) -> None:
    """f(x) element by element: the output's channels are the input's."""
    for output in node.outputs:
        state.put(output, state.of(node.inputs[0]))


def spatial(node: ir.Node, state: Labelling) -> None:
    """Pooling and Resize act on axes 2 and up; channels of axis 1 stay."""
    x = node.inputs[0]
    state.freeze(x, f"{node.op_type} along a channel axis", but=(1,))
    for output in node.outputs:
        state.put(output, [f for f in state.of(x) if f.axes == (1,)])


def broadcast(node: ir.Node, state: Labelling) -> None:
    """z = f(x, y, …) with numpy broadcasting: channels at the same position of the result are one."""
    operands = [v for v in node.inputs if v is not None]
    if not any(state.of(v) for v in operands if not is_constant(v)):
        return
    if any(v.shape is None for v in operands):
        for value in operands:
            state.freeze(value, f"rank of an operand of {node.op_type} is not known")
        return
    rank = max(len(v.shape) for v in operands if v.shape is not None)
    fields: list[Field] = []
    for value in operands:
        if not is_constant(value):
            fields = _merge(state, fields, _aligned(value, state, rank))
    for value in operands:
        fields = [f for f in fields if _admits(node, state, value, f, rank)]
    state.put(node.outputs[0], fields)


def _aligned(value: ir.Value, state: Labelling, rank: int) -> list[Field]:
    """The fields of an operand in the result's axes, without the axes along which it is broadcast."""
    assert value.shape is not None
    offset = rank - len(value.shape)
    result = []
    for found in state.of(value):
        wide = tuple(i for i, a in enumerate(found.axes) if found.atoms.shape[i] > 1 or len(found.axes) == 1)
        index = tuple(slice(None) if i in wide else 0 for i in range(len(found.axes)))
        result.append(Field(tuple(found.axes[i] + offset for i in wide), found.atoms[index]))
    return result


def _merge(state: Labelling, fields: list[Field], others: list[Field]) -> list[Field]:
    """Tie two sets of fields; fields that share an axis become one over the union of their axes."""
    for other in others:
        overlapping = [f for f in fields if set(f.axes) & set(other.axes)]
        fields = [f for f in fields if f not in overlapping]
        for mine in overlapping:
            axes = tuple(sorted(set(mine.axes) | set(other.axes)))
            one, two = _over(mine, axes), _over(other, axes)
            if any(a != b and 1 not in (a, b) for a, b in zip(one.shape, two.shape, strict=True)):
                state.atoms.freeze(mine.atoms, "broadcast against a value of another size")
                state.atoms.freeze(other.atoms, "broadcast against a value of another size")
                continue
            state.atoms.unify(one, two)
            shape = np.broadcast_shapes(one.shape, two.shape)
            other = Field(axes, np.ascontiguousarray(np.broadcast_to(one if one.size >= two.size else two, shape)))
        fields.append(other)
    return fields


def _over(found: Field, axes: tuple[int, ...]) -> IntArray:
    return np.expand_dims(found.atoms, [i for i, a in enumerate(axes) if a not in found.axes])


def _admits(node: ir.Node, state: Labelling, value: ir.Value, found: Field, rank: int) -> bool:
    """Bind a constant operand to the field; freeze the field when the operand has a size but no channels there."""
    assert value.shape is not None
    offset = rank - len(value.shape)
    own = [a - offset for a in found.axes if a >= offset and value.shape[a - offset] != 1]
    if not own:
        return True
    if is_constant(value):
        if len(found.axes) == 1:
            state.bind(node, value, own[0], found.atoms, "each")
        elif len(own) == 1:
            lines = np.moveaxis(found.atoms, found.axes.index(own[0] + offset), 0)
            lines = lines.reshape(len(lines), -1)
            state.atoms.unify(lines, lines[:, :1])
            state.bind(node, value, own[0], lines[:, 0], "each")
        else:
            state.atoms.freeze(found.atoms, f"{value.name} spans several channel axes")
        return True
    if all(state.at(value, a) is not None for a in own):
        return True
    if any(not isinstance(value.shape[a], int) for a in own):
        state.atoms.freeze(found.atoms, f"combined with {value.name}, whose size is not known")
    else:
        state.atoms.freeze(found.atoms, f"combined with {value.name}, whose channels cannot be removed")
    return True


def reduce(node: ir.Node, state: Labelling) -> None:
    """Reductions drop (or keep as 1) the reduced axes; a reduction over channels freezes them."""
    x = node.inputs[0]
    if not state.of(x):
        return
    assert x is not None
    if x.shape is None:
        return state.freeze(x, f"rank of the input of {node.op_type} is not known")
    rank = len(x.shape)
    axes = axes_of(node, 1, rank)
    if axes is None:
        return state.freeze(x, f"{node.op_type} over all axes, or over axes that are not constant")
    keep = bool(attribute(node, "keepdims", 1))
    moved = {a: a - (0 if keep else sum(r < a for r in axes)) for a in range(rank)}
    fields = []
    for found in state.of(x):
        if set(found.axes) & set(axes):
            state.atoms.freeze(found.atoms, f"{node.op_type} over channels")
        else:
            fields.append(found.move(moved))
    state.put(node.outputs[0], fields)


def along_axis(node: ir.Node, state: Labelling) -> None:
    """Softmax and its kin mix the positions of one axis; channels there are frozen, others stay."""
    x = node.inputs[0]
    if not state.of(x):
        return
    assert x is not None
    if x.shape is None:
        return state.freeze(x, f"rank of the input of {node.op_type} is not known")
    rank = len(x.shape)
    model_version = node.version or (node.graph.opset_imports.get("", 13) if node.graph else 13)
    flattened = node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and model_version < 13
    axis = int(attribute(node, "axis", 1 if flattened else -1)) % rank  # type: ignore[call-overload]
    mixed = set(range(axis, rank)) if flattened else {axis}
    for found in state.of(x):
        if mixed & set(found.axes):
            state.atoms.freeze(found.atoms, f"{node.op_type} over channels")
    state.put(node.outputs[0], [f for f in state.of(x) if not mixed & set(f.axes)])


def layer_norm(node: ir.Node, state: Labelling) -> None:
    """LayerNormalization(x, scale, bias): removing channels changes the mean and variance of the others."""
    x = node.inputs[0]
    if not state.of(x):
        return
    assert x is not None
    if x.shape is None:
        return state.freeze(x, "rank of the input of LayerNormalization is not known")
    rank = len(x.shape)
    axis = int(attribute(node, "axis", -1)) % rank  # type: ignore[call-overload]
    for found in state.of(x):
        if min(found.axes) < axis <= max(found.axes) or (len(found.axes) > 1 and min(found.axes) >= axis):
            state.atoms.freeze(found.atoms, "LayerNormalization over part of a channel layout")
        elif found.axes[0] >= axis:
            state.atoms.caution(found.atoms, f"normalised over channels by {node.op_type}")
            for parameter in node.inputs[1:]:
                own = found.axes[0] - rank
                if parameter is not None and parameter.shape is not None and len(parameter.shape) >= -own:
                    state.bind(node, parameter, len(parameter.shape) + own, found.atoms, "each")
    state.put(node.outputs[0], state.of(x))


def quantize(node: ir.Node, state: Labelling) -> None:
    """QuantizeLinear and DequantizeLinear: channels stay; a scale and zero point per channel go with them."""
    x = node.inputs[0]
    assert x is not None
    if is_constant(x):
        state.spread(node, x)
    if not state.of(x) or x.shape is None:
        return
    axis = int(attribute(node, "axis", 1)) % max(len(x.shape), 1)  # type: ignore[call-overload]
    found = state.at(x, axis)
    for parameter in node.inputs[1:3]:
        if parameter is not None and parameter.shape is not None and len(parameter.shape) > 0 and found is not None:
            if attribute(node, "block_size", 0) or found.axes != (axis,):
                state.atoms.freeze(found.atoms, "quantized in blocks")
            elif parameter.shape[0] != 1:
                state.bind(node, parameter, 0, found.atoms, "each")
    state.put(node.outputs[0], state.of(x))

"""Channel rules of operators that move data: fields are indexed, concatenated, renumbered."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ..graph import attribute, constant, is_constant
from .labelling import Field, Labelling

__all__ = ["axes_of", "concat", "depth_to_space", "gather", "pad", "slice_", "split", "squeeze", "transpose"]


def axes_of(node: ir.Node, place: int, rank: int, name: str = "axes") -> list[int] | None:
    """Axes given as an attribute or as a constant input, made non-negative; None when absent or not constant."""
    given = attribute(node, name)
    if given is None:
        array = constant(node.inputs[place]) if place < len(node.inputs) and node.inputs[place] is not None else None
        if array is None:
            return None
        given = array.ravel().tolist()
    return [int(a) % rank for a in given]  # type: ignore[attr-defined]


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def transpose(node: ir.Node, state: Labelling) -> None:
    """Transpose: axes are permuted."""
    x = node.inputs[0]
    assert x is not None
    state.spread(node, x)
    rank = _rank(x)
    if rank is None:
        return state.freeze(x, "rank of a transposed value is not known")
    perm: Any = attribute(node, "perm") or tuple(reversed(range(rank)))
    moved = {int(old): new for new, old in enumerate(perm)}
    state.put(node.outputs[0], [f.move(moved) for f in state.of(x)])


def squeeze(node: ir.Node, state: Labelling) -> None:
    """Squeeze and Unsqueeze: axes are renumbered."""
    x = node.inputs[0]
    rank = _rank(x)
    assert x is not None
    if not state.of(x):
        return
    if rank is None:
        return state.freeze(x, f"rank of the input of {node.op_type} is not known")
    if node.op_type == "Squeeze":
        axes = axes_of(node, 1, rank)
        if axes is None and (len(node.inputs) < 2 or node.inputs[1] is None) and x.shape is not None:
            axes = [i for i, d in enumerate(x.shape) if d == 1]
        if axes is None:
            return state.freeze(x, "axes of Squeeze are not constant")
        left = [a for a in range(rank) if a not in axes]
        moved = {old: new for new, old in enumerate(left)}
    else:
        given = axes_of(node, 1, 1 << 30)
        if given is None:
            return state.freeze(x, "axes of Unsqueeze are not constant")
        total = rank + len(given)
        added = {a if a < total else a - (1 << 30) + total for a in given}
        moved = dict(enumerate(a for a in range(total) if a not in added))
    for found in state.of(x):
        if not set(found.axes) <= set(moved):
            state.atoms.freeze(found.atoms, "Squeeze of the channel axis")
    state.put(node.outputs[0], [f.move(moved) for f in state.of(x) if set(f.axes) <= set(moved)])


def concat(node: ir.Node, state: Labelling) -> None:
    """Concat: fields follow each other along the axis, and are tied along the others."""
    rank = next((r for v in node.inputs if (r := _rank(v)) is not None), None)
    known = [v for v in node.inputs if state.of(v)]
    if not known:
        return
    if rank is None:
        for value in known:
            state.freeze(value, "rank of a concatenated value is not known")
        return
    axis = int(attribute(node, "axis", 0)) % rank  # type: ignore[call-overload]
    if any(axis in f.axes for v in known for f in state.of(v)):
        parts = [_section(node, state, v, axis) for v in node.inputs]
        if all(p is not None and p.axes == (axis,) for p in parts):
            joined = np.concatenate([p.atoms for p in parts if p is not None])
            state.put(node.outputs[0], [Field((axis,), joined)])
            return
    elif _tie(state, known, [v for v in node.inputs if v not in known]):
        state.put(node.outputs[0], state.of(known[0]))
        return
    for value in known:
        state.freeze(value, "concatenated with a value of another channel layout")


def _section(node: ir.Node, state: Labelling, value: ir.Value | None, axis: int) -> Field | None:
    """The field of one concatenated input; a value without channels gets frozen ones."""
    assert value is not None
    if is_constant(value):
        atoms = state.source(node, value, axis, "each")
        return None if atoms is None else Field((axis,), atoms)
    fields = state.of(value)
    if fields:
        return fields[0] if len(fields) == 1 else None
    size = value.shape[axis] if value.shape is not None else None
    if not isinstance(size, int):
        return None
    atoms = state.atoms.fresh(size)
    state.atoms.freeze(atoms, f"{value.name} is concatenated, and its channels cannot be removed")
    return Field((axis,), atoms)


def _tie(state: Labelling, known: list[ir.Value | None], others: list[ir.Value | None]) -> bool:
    first = state.of(known[0])
    if others or any([f.axes for f in state.of(v)] != [f.axes for f in first] for v in known):
        return False
    for value in known[1:]:
        for mine, other in zip(first, state.of(value), strict=True):
            state.atoms.unify(mine.atoms, other.atoms)
    return True


def split(node: ir.Node, state: Labelling) -> None:
    """Split: every output takes its range along the axis."""
    x = node.inputs[0]
    rank = _rank(x)
    if not state.of(x) or x is None or x.shape is None or rank is None:
        return
    axis = int(attribute(node, "axis", 0)) % rank  # type: ignore[call-overload]
    sizes = [None if o.shape is None else o.shape[axis] for o in node.outputs]
    total = x.shape[axis]
    if state.at(x, axis) is None:
        for output in node.outputs:
            state.put(output, state.of(x))
    elif not isinstance(total, int) or any(not isinstance(s, int) for s in sizes):
        state.freeze(x, "sizes of Split are not known")
    else:
        start = 0
        for output, size in zip(node.outputs, sizes, strict=True):
            assert isinstance(size, int)
            part = slice(start, start + size)
            state.put(output, [f.take(axis, part) if axis in f.axes else f for f in state.of(x)])
            start += size


def slice_(node: ir.Node, state: Labelling) -> None:
    """Slice: the field is sliced along its axis."""
    x = node.inputs[0]
    rank = _rank(x)
    if not state.of(x) or x is None:
        return
    index = slice_index(node, rank) if rank is not None else None
    touched = axes_of(node, 3, rank) if rank is not None else None
    fields = state.of(x)
    if index is None and (touched is None or any(a in f.axes for a in touched for f in fields)):
        return state.freeze(x, "bounds of a Slice along channels are not constant")
    for axis, part in (index or {}).items():
        if (part.step or 1) != 1 and any(axis in f.axes for f in fields):
            return state.freeze(x, "strided Slice along channels")
        fields = [f.take(axis, part) if axis in f.axes else f for f in fields]
    state.put(node.outputs[0], fields)


def slice_index(node: ir.Node, rank: int) -> dict[int, slice] | None:
    """Axis to Python slice of a Slice with constant bounds, in either operator form; None otherwise."""
    if attribute(node, "starts") is not None:
        starts, ends = attribute(node, "starts"), attribute(node, "ends")
        axes, steps = attribute(node, "axes"), None
    else:
        parts = [constant(v) if v is not None else None for v in node.inputs[1:]] + [None, None]
        if parts[0] is None or parts[1] is None:
            return None
        starts, ends = parts[0].tolist(), parts[1].tolist()
        axes = None if parts[2] is None else parts[2].tolist()
        steps = None if parts[3] is None else parts[3].tolist()
        if any(v is not None and p is None for v, p in zip(node.inputs[3:5], parts[2:4], strict=False)):
            return None
    result = {}
    for i, start in enumerate(starts):  # type: ignore[arg-type, var-annotated]
        step = 1 if steps is None else int(steps[i])
        end: int | None = int(ends[i])  # type: ignore[index]
        if step < 0 and end is not None and end < -(1 << 30):
            end = None
        result[(i if axes is None else int(axes[i])) % rank] = slice(int(start), end, step)  # type: ignore[index]
    return result


def gather(node: ir.Node, state: Labelling) -> None:
    """Gather: along channels with constant indices the field is indexed; along another axis axes are renumbered."""
    x, index_value = node.inputs
    rank = _rank(x)
    assert x is not None and index_value is not None
    if rank is None or index_value.shape is None:
        return state.freeze(x, "rank of a gathered value is not known")
    axis = int(attribute(node, "axis", 0)) % rank  # type: ignore[call-overload]
    if is_constant(x) and not state.of(x) and rank == 2 and axis == 0 and not is_constant(index_value):
        state.source(node, x, 1, "out")  # an embedding table: its columns begin channels
    index_rank = len(index_value.shape)
    fields = []
    for found in state.of(x):
        if axis in found.axes:
            indices = constant(index_value)
            if indices is None or indices.ndim > 1 or found.axes != (axis,):
                state.atoms.freeze(found.atoms, "gathered along channels by a computed index")
            elif indices.ndim == 0:
                state.atoms.freeze(found.atoms[int(indices)], "one channel is picked by its index")
            else:
                fields.append(found.take(axis, indices.astype(np.int64)))
        else:
            fields.append(found.move({a: a if a < axis else a + index_rank - 1 for a in found.axes}))
    state.put(node.outputs[0], fields)


def pad(node: ir.Node, state: Labelling) -> None:
    """Pad: positions added along channels are new channels that hold a constant."""
    x = node.inputs[0]
    rank = _rank(x)
    if not state.of(x) or rank is None:
        return
    amounts = pad_amounts(node, rank)
    if amounts is None:
        return state.freeze(x, "amounts of Pad are not constant")
    mode = attribute(node, "mode", "constant")
    fields = []
    for found in state.of(x):
        padded = [a for a in found.axes if any(amounts[a])]
        if padded and (mode != "constant" or found.axes != (padded[0],) or min(amounts[padded[0]]) < 0):
            state.atoms.freeze(found.atoms, f"{mode} Pad along channels")
            continue
        if padded:
            before, after = amounts[padded[0]]
            around = [state.atoms.fresh(before), found.atoms, state.atoms.fresh(after)]
            fields.append(Field(found.axes, np.concatenate(around)))
        else:
            fields.append(found)
    state.put(node.outputs[0], fields)


def pad_amounts(node: ir.Node, rank: int) -> list[tuple[int, int]] | None:
    """(before, after) of every axis, or None when they are not constant."""
    given = attribute(node, "pads")
    if given is None:
        array = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if array is None:
            return None
        given = array.tolist()
    pads = [int(p) for p in given]  # type: ignore[attr-defined]
    axes = axes_of(node, 3, rank) if len(node.inputs) > 3 and node.inputs[3] is not None else list(range(rank))
    if axes is None:
        return None
    amounts = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        amounts[axis] = (pads[i], pads[i + len(axes)])
    return amounts


def depth_to_space(node: ir.Node, state: Labelling) -> None:
    """DepthToSpace and SpaceToDepth: the b² positions that become (came from) one channel are one."""
    x = node.inputs[0]
    channels = state.alone(x, 1, f"{node.op_type} reads it together with another axis")
    state.freeze(x, f"{node.op_type} along a spatial axis", but=(1,))
    if channels is None:
        return
    square = int(attribute(node, "blocksize")) ** 2  # type: ignore[call-overload]
    if node.op_type == "SpaceToDepth":
        state.put(node.outputs[0], [Field((1,), np.tile(channels, square))])
        return
    crd = attribute(node, "mode", "DCR") == "CRD"
    table = channels.reshape(-1, square).T if crd else channels.reshape(square, -1)
    state.atoms.unify(table, table[:1])
    state.put(node.outputs[0], [Field((1,), table[0])])

"""Reshape and Flatten: how channel positions keep their row-major order through new axes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir

from ..graph import is_constant, static_shape
from .atoms import IntArray
from .labelling import Field, Labelling

__all__ = ["reshape"]

Span = tuple[int, int, int, int]


def reshape(node: ir.Node, state: Labelling) -> None:
    """Reshape and Flatten: positions keep their row-major order; unchanged leading and trailing axes keep theirs."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    state.spread(node, x) if is_constant(x) and node.op_type != "Flatten" else None
    if not state.of(x):
        return
    if x.shape is None or y.shape is None:
        return state.freeze(x, f"shapes around {node.op_type} are not known")
    segments = _segments(list(x.shape), list(y.shape))
    fields: list[Field] = []
    for found in state.of(x):
        mapped = _through(found, [f for f in state.of(x) if f is not found], segments, list(x.shape), list(y.shape))
        if mapped is None or not _writable(node, mapped):
            state.atoms.freeze(found.atoms, f"{node.op_type} with unknown sizes, or of several channel axes at once")
        else:
            fields.append(mapped)
    state.put(y, fields)


def _writable(node: ir.Node, found: Field) -> bool:
    """Whether the target shape states the sizes of the field's axes in constants, which a removal can rewrite."""
    target = node.inputs[1] if node.op_type == "Reshape" else None
    if node.op_type == "Flatten" or is_constant(target):
        return True
    producer = None if target is None else target.producer()
    if producer is None or producer.op_type != "Concat":
        return False
    parts = [(static_shape(v) or (0,))[0] for v in producer.inputs]
    ends = np.cumsum(parts)
    places = [int(np.searchsorted(ends, axis, side="right")) for axis in found.axes]
    return 0 not in parts and all(p < len(parts) and is_constant(producer.inputs[p]) for p in places)


def _segments(old: list[object], new: list[object]) -> list[Span]:
    """Ranges [a, b) of old axes that become ranges [c, d) of new axes, as fine as the known sizes allow."""
    head = 0
    while head < min(len(old), len(new)) and _same(old[head], new[head]):
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and _same(old[-1 - tail], new[-1 - tail]):
        tail += 1
    spans = [(i, i + 1, i, i + 1) for i in range(head)]
    middle_old, middle_new = old[head : len(old) - tail], new[head : len(new) - tail]
    if all(isinstance(d, int) and d > 0 for d in middle_old + middle_new):
        spans += [(a + head, b + head, c + head, d + head) for a, b, c, d in _factor(middle_old, middle_new)]
    elif middle_old or middle_new:
        spans.append((head, len(old) - tail, head, len(new) - tail))
    spans += [(len(old) - i, len(old) - i + 1, len(new) - i, len(new) - i + 1) for i in range(tail, 0, -1)]
    return spans


def _same(old: object, new: object) -> bool:
    return old == new and (isinstance(old, int) or getattr(old, "value", None) is not None)


def _factor(old: list[object], new: list[object]) -> list[Span]:
    """Cut both lists wherever the products of the sizes so far agree."""
    ends_old = np.cumprod(np.array(old, np.int64)).tolist()
    ends_new = np.cumprod(np.array(new, np.int64)).tolist()
    cuts = [(0, 0)]
    for i, product in enumerate(ends_old[:-1], 1):
        if product in ends_new[:-1]:
            j = ends_new.index(product) + 1
            if j > cuts[-1][1] and i > cuts[-1][0]:
                cuts.append((i, j))
    cuts.append((len(old), len(new)))
    return [(a, b, c, d) for (a, c), (b, d) in pairwise(cuts)]


def _through(
    found: Field, others: list[Field], spans: list[Span], old: list[object], new: list[object]
) -> Field | None:
    touched = [s for s in spans if any(s[0] <= a < s[1] for a in found.axes)]
    a, b, c, d = touched[0][0], touched[-1][1], touched[0][2], touched[-1][3]
    if any(a <= axis < b for f in others for axis in f.axes):
        return None
    if len(touched) == b - a == d - c:  # every axis is carried over as it is
        moved = {axis: axis - a + c for axis in found.axes}
        return found.move(moved)
    sizes_old, sizes_new = old[a:b], new[c:d]
    if not all(isinstance(s, int) for s in sizes_old + sizes_new):
        return None
    spread = np.expand_dims(found.atoms, [i - a for i in range(a, b) if i not in found.axes])
    full = np.broadcast_to(spread, sizes_old).reshape(sizes_new)  # type: ignore[arg-type]
    axes: tuple[int, ...] = tuple(range(c, d))
    for axis in reversed(range(d - c)):
        first: IntArray = full.take([0], axis)
        if full.shape[axis] > 1 and (full == first).all():
            full, axes = first.squeeze(axis), axes[:axis] + axes[axis + 1 :]
        elif full.shape[axis] == 1:
            full, axes = full.squeeze(axis), axes[:axis] + axes[axis + 1 :]
    return Field(axes, np.ascontiguousarray(full), found.role)

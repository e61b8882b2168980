"""Channel dependency groups of a model: what must be removed together, where it lies, and what cannot be removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..graph import attribute, constant, is_constant
from .atoms import IntArray
from .labelling import Field, Labelling
from .rules import RULES

__all__ = ["Channels", "Group", "Member", "analyze"]

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Member:
    """One axis of a parameter that a group runs through.

    positions: [units, m], the m positions along `axis` that belong to each unit; role as in `Field`.
    """

    value: ir.Value
    axis: int
    role: str
    positions: IntArray


@dataclass(frozen=True)
class Group:
    """Units (channels, heads, hidden units) that occur in the same places; each can be removed without the others.

    units: the representative of each unit; frozen: why none can be removed, or empty; inexact: why removing differs
    from setting to zero (a normalisation over channels), or empty.
    """

    name: str
    units: IntArray
    members: tuple[Member, ...]
    frozen: str
    inexact: str

    def __len__(self) -> int:
        return len(self.units)


@dataclass(frozen=True)
class Channels:
    """The groups of a model and the channel of every position of every labelled value."""

    labels: Labelling
    groups: tuple[Group, ...]

    def keeps(self, field: Field, removed: IntArray) -> npt.NDArray[np.bool_]:
        """Which positions of a field stay when the units `removed` go."""
        return ~np.isin(self.labels.atoms.find(field.atoms), removed)

    def spare(self, removed: IntArray) -> IntArray:
        """`removed` without the units whose loss would leave some value without any channel; the last ones stay."""
        units = list(dict.fromkeys(np.asarray(removed, np.int64).ravel().tolist()))
        gone = np.zeros(len(self.labels.atoms), bool)
        gone[units] = True
        rank = {unit: i for i, unit in enumerate(units)}
        for found in (f for fields in self.labels.fields.values() for f in fields):
            roots = self.labels.atoms.find(found.atoms)
            if roots.size and gone[roots].all():
                gone[max(np.unique(roots).tolist(), key=rank.__getitem__)] = False
        return np.array([u for u in units if gone[u]], np.int64)

    @property
    def free(self) -> tuple[Group, ...]:
        """Groups whose units can be removed, exactly."""
        return tuple(g for g in self.groups if not g.frozen and not g.inexact)


def analyze(model: ir.Model) -> Channels:
    """Channel dependency groups of the main graph, by one pass of the operator rules over its nodes in order.

    Shapes are read from the values: run shape inference first. A part that no rule covers freezes what it reads.
    """
    state = Labelling()
    for node in model.graph:
        if node.op_type == "Shape" and node.domain in _STANDARD:
            _sizes_read(node, state)
            continue
        rule = RULES.get(node.op_type) if node.domain in _STANDARD else None
        if rule is None:
            for value in node.inputs:
                state.freeze(value, f"no rule for {node.op_type}")
        else:
            rule(node, state)
    _freeze_borders(model, state)
    _make_rectangular(state)
    return Channels(state, _collect(state))


def _sizes_read(node: ir.Node, state: Labelling) -> None:
    """Freeze channels whose number is computed with."""
    x = node.inputs[0]
    axes = {a for f in state.of(x) for a in f.axes}
    if not axes or x is None or x.shape is None:
        return state.freeze(x, "its shape is read")
    rank = len(x.shape)
    start: Any = attribute(node, "start", 0)
    end: Any = attribute(node, "end")
    window = list(range(rank))[start:end]
    for use in node.outputs[0].uses():
        picked = set(window)
        if use.node.op_type == "Gather" and use.idx == 0:
            index = constant(use.node.inputs[1])
            if index is not None:
                picked = {window[int(i)] for i in index.ravel()}
        elif use.node.op_type == "Slice" and use.idx == 0:
            from .movement import slice_index

            bounds = slice_index(use.node, 1)
            picked = set(window[bounds[0]]) if bounds is not None else picked
        if axes & picked:
            state.freeze(x, f"its size is read by {use.node.op_type}")
    if node.outputs[0].is_graph_output():
        state.freeze(x, "its shape is an output")


def _freeze_borders(model: ir.Model, state: Labelling) -> None:
    for output in model.graph.outputs:
        state.freeze(output, "graph output")
    for value in list(state.fields):
        for use in value.uses():
            if use.node.graph is not model.graph:
                state.freeze(value, "captured by a subgraph")
            elif is_constant(value) and use.node not in state.readers[value] and use.node.op_type != "Shape":
                state.freeze(value, f"{value.name} is also read by {use.node.op_type}")


def _make_rectangular(state: Labelling) -> None:
    """A field over several axes can only lose whole slices: tie it along all axes but one, until nothing changes."""
    joint = [f for fields in state.fields.values() for f in fields if len(f.axes) > 1]
    changed = True
    while changed:
        changed = False
        for found in joint:
            roots = state.atoms.find(found.atoms)
            if not any(_constant_along_others(roots, axis) for axis in range(roots.ndim)):
                flat = found.atoms.reshape(-1, found.atoms.shape[-1])
                state.atoms.unify(flat, flat[:1])
                changed = True


def _constant_along_others(roots: IntArray, axis: int) -> bool:
    lines = np.moveaxis(roots, axis, 0).reshape(roots.shape[axis], -1)
    return bool((lines == lines[:, :1]).all())


def _collect(state: Labelling) -> tuple[Group, ...]:
    """Units with the same set of parameter axes form a group; groups in order of first appearance."""
    parameters = [(v, f) for v, fields in state.fields.items() if is_constant(v) for f in fields]
    signature = np.zeros(len(state.atoms), np.uint64)
    first = np.full(len(state.atoms), len(parameters), np.int64)
    roots_of = []
    with np.errstate(over="ignore"):
        for i, (_, found) in enumerate(parameters):
            roots = state.atoms.find(found.atoms)
            roots_of.append(roots)
            units, times = np.unique(roots, return_counts=True)  # a unit may lie twice where others lie once
            place = np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15) + times.astype(np.uint64)
            signature[units] = signature[units] * np.uint64(6364136223846793005) + place
            first[units] = np.minimum(first[units], i)
    present = np.flatnonzero(first < len(parameters))
    _, group_of = np.unique(signature[present], return_inverse=True)
    order = np.argsort(group_of, kind="stable")
    runs = np.split(present[order], np.flatnonzero(np.diff(group_of[order])) + 1) if len(present) else []
    where: dict[int, int] = {}
    runs.sort(key=lambda units: (int(first[units[0]]), int(units[0])))
    for g, units in enumerate(runs):
        where.update(dict.fromkeys(units.tolist(), g))
    members: list[list[Member]] = [[] for _ in runs]
    for (value, found), roots in zip(parameters, roots_of, strict=True):
        if len(found.axes) == 1:
            for g in dict.fromkeys(where[int(r)] for r in np.unique(roots)):
                positions = np.flatnonzero(np.isin(roots, runs[g]))
                ordered = positions[np.argsort(roots[positions], kind="stable")]
                members[g].append(Member(value, found.axes[0], found.role, ordered.reshape(len(runs[g]), -1)))
    frozen, inexact = state.atoms.frozen(), state.atoms.inexact()
    return tuple(
        part
        for units, places in zip(runs, members, strict=True)
        for part in _by_reason(units, tuple(places), frozen, inexact)
    )


def _by_reason(
    units: IntArray, members: tuple[Member, ...], frozen: Mapping[int, str], inexact: Mapping[int, str]
) -> list[Group]:
    """Split a group by the reasons of its units (one picked channel of a layer may be frozen, the others free)."""
    reasons = [(frozen.get(int(u), ""), inexact.get(int(u), "")) for u in units]
    parts = []
    producers = [m for m in members if m.role == "out"] or list(members)
    name = str(producers[0].value.name) if producers else "?"
    for reason in dict.fromkeys(reasons):
        chosen = np.array([r == reason for r in reasons])
        mine = tuple(Member(m.value, m.axis, m.role, m.positions[chosen]) for m in members)
        label = name if len(set(reasons)) == 1 else f"{name}[{int(mine[0].positions[0, 0]) if mine else 0}…]"
        parts.append(Group(label, units[chosen], mine, *reason))
    return parts

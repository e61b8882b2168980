"""Which positions of which tensor axes are the same channel: the state that the operator rules fill."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from ..graph import is_constant, static_shape
from .atoms import Atoms, IntArray

__all__ = ["Field", "Labelling"]


@dataclass(frozen=True)
class Field:
    """The channel of every position along some axes of one tensor; index maps are array operations on `atoms`.

    axes: ascending axes; atoms: one integer per position, one array dimension per axis.
    role: of a constant's axis: `out` (rows that produce the channel), `in` (columns that consume it), `each` (one
    parameter per channel); empty for activations.
    """

    axes: tuple[int, ...]
    atoms: IntArray
    role: str = ""

    def take(self, axis: int, index: IntArray | slice) -> Field:
        """The field of a tensor indexed along one of the axes."""
        where: list[IntArray | slice] = [slice(None)] * len(self.axes)
        where[self.axes.index(axis)] = index
        return replace(self, atoms=self.atoms[tuple(where)])

    def move(self, axes: dict[int, int]) -> Field:
        """The field after axes were renumbered."""
        target = [axes[a] for a in self.axes]
        order = np.argsort(target)
        return replace(self, axes=tuple(sorted(target)), atoms=self.atoms.transpose(order))


@dataclass
class Labelling:
    """Fields of all values of a graph; rules read those of a node's inputs and set those of its outputs."""

    atoms: Atoms = field(default_factory=Atoms)
    fields: dict[ir.Value, list[Field]] = field(default_factory=dict)
    readers: dict[ir.Value, set[ir.Node]] = field(default_factory=lambda: defaultdict(set))

    def of(self, value: ir.Value | None) -> list[Field]:
        """The fields of a value, none when nothing of it can be removed."""
        return [] if value is None else self.fields.get(value, [])

    def put(self, value: ir.Value, fields: list[Field]) -> None:
        """Set the fields of a node's output."""
        kept = [f for f in fields if f.axes]
        if kept:
            self.fields[value] = kept

    def at(self, value: ir.Value | None, axis: int) -> Field | None:
        """The field that covers an axis, or None."""
        return next((f for f in self.of(value) if axis in f.axes), None)

    def alone(self, value: ir.Value | None, axis: int, reason: str) -> IntArray | None:
        """The positions along one axis; a field that spans others too is frozen with the reason."""
        found = self.at(value, axis)
        if found is None:
            return None
        if found.axes != (axis,):
            self.atoms.freeze(found.atoms, reason)
            return None
        return found.atoms

    def freeze(self, value: ir.Value | None, reason: str, *, but: tuple[int, ...] = ()) -> None:
        """Freeze the fields of a value, except those that lie entirely on the axes `but`."""
        for found in self.of(value):
            if not set(found.axes) <= set(but):
                self.atoms.freeze(found.atoms, reason)

    def bind(self, node: ir.Node, value: ir.Value, axis: int, atoms: IntArray, role: str) -> None:
        """Say that an axis of a parameter carries these channels; ties them when it carries some already."""
        self.readers[value].add(node)
        found = self.at(value, axis)
        if found is not None:
            if found.axes == (axis,):
                self.atoms.unify(found.atoms, atoms)
            else:
                self.atoms.freeze(found.atoms, f"{value.name} is read in two layouts")
                self.atoms.freeze(atoms, f"{value.name} is read in two layouts")
        elif is_constant(value):
            self.fields.setdefault(value, []).append(Field((axis,), atoms, role))
        else:
            self.atoms.freeze(atoms, f"{value.name} is computed, not a constant")

    def source(self, node: ir.Node, value: ir.Value, axis: int, role: str) -> IntArray | None:
        """The channels along a parameter's axis, new ones when it has none; None when it is not a constant."""
        found = self.at(value, axis)
        if found is None:
            shape = static_shape(value)
            if not is_constant(value) or shape is None:
                return None
            found = Field((axis,), self.atoms.fresh(shape[axis]), role)
            self.fields.setdefault(value, []).append(found)
        self.readers[value].add(node)
        return found.atoms if found.axes == (axis,) else None

    def spread(self, node: ir.Node, value: ir.Value) -> None:
        """Give every axis of a constant channels of its own, for constants that movement operators rearrange."""
        if is_constant(value):
            for axis, size in enumerate(static_shape(value) or ()):
                if size > 1:
                    self.source(node, value, axis, "each")

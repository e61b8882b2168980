"""Which input carries the signal, and what the others are: tokens, masks, state fed back, options, or nothing read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.graph import all_nodes, constant

__all__ = ["Roles", "Tokens", "assign"]

Array = npt.NDArray[np.generic]

_FEWEST_WORDS = 32  # rows of a table below which its index is a segment or a class, not a word
_SAME_ELEMENTS = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, eq=False)
class Tokens:
    """An input of indices into an embedding table; `words`: the rows that training has touched (others are 0)."""

    name: str
    size: int
    words: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Roles:
    """signal: the one real input that stands for the data; None where tokens do.

    states: input -> the output that it is fed from in the next call. masks: 1 where a sequence has elements.
    positions: 0, 1, 2 … along the sequence. constants: what has one sensible value in every call. twins: further real
    inputs of the signal's shape, such as the other of two pictures that are compared.
    """

    signal: ir.Value | None = None
    tokens: list[Tokens] = field(default_factory=list)
    masks: list[ir.Value] = field(default_factory=list)
    positions: list[ir.Value] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    twins: list[str] = field(default_factory=list)


def assign(model: ir.Model) -> Roles | str:
    """The role of every input, from types, shapes and what reads it; or the reason why one has none."""
    read = _read_values(model)
    roles = Roles()
    real = [v for v in model.graph.inputs if v.dtype == ir.DataType.FLOAT and v in read]
    for value in model.graph.inputs:
        if value in real:
            continue
        if reason := _place(value, value in read, len(model.graph.inputs) == 1, roles):
            return reason
    if roles.tokens or not real:
        signal, states = None, real
    else:
        signal, states = real[0], real[1:]
    roles = Roles(signal, roles.tokens, roles.masks, roles.positions, roles.states, roles.constants)
    if signal is None and not roles.tokens:
        return "no input carries a signal that could be made"
    return _feed_back(model, states, signal, roles)


def _read_values(model: ir.Model) -> set[ir.Value]:
    read = {v for node in all_nodes(model) for v in node.inputs if v is not None}
    return read | set(model.graph.outputs)


def _place(value: ir.Value, is_read: bool, alone: bool, roles: Roles) -> str:
    """Give an input that is not a real number its role; the reason why it has none, else empty."""
    dims = list(value.shape) if value.shape is not None else []
    kind = value.dtype.name.lower() if value.dtype is not None else "unknown"
    fixed = tuple(d if isinstance(d, int) else 1 for d in dims)
    if not is_read:
        roles.constants[str(value.name)] = np.zeros(fixed, (value.dtype or ir.DataType.FLOAT).numpy())
        return ""
    if value.dtype not in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL):
        return f"input {value.name} holds {kind}: no prior for it"
    rows = [table for table in _tables(value) if table.ndim == 2]
    if len(dims) == 2 and rows:
        table = max(rows, key=len)
        if "position" in str(value.name).lower():
            roles.positions.append(value)
        elif len(table) < _FEWEST_WORDS and not alone:
            roles.constants[str(value.name)] = np.zeros(fixed, value.dtype.numpy())
        else:
            roles.tokens.append(Tokens(str(value.name), len(table), np.flatnonzero(np.abs(table).any(1))))
    elif len(dims) == 2:
        roles.masks.append(value)
    elif (choice := _compared_with(value)) is not None:
        roles.constants[str(value.name)] = np.full(fixed, choice, value.dtype.numpy())
    else:
        return f"input {value.name} holds {kind}: no prior for it"
    return ""


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Uses of a value, also behind operators that leave its elements as they are."""
    for use in value.uses():
        yield use.node, use.idx
        if use.node.op_type in _SAME_ELEMENTS and use.idx == 0:
            yield from _readers(use.node.outputs[0])


def _tables(value: ir.Value) -> list[Array]:
    """The constant tables that a value indexes."""
    found = [constant(n.inputs[0]) for n, i in _readers(value) if n.op_type == "Gather" and i == 1]
    return [table for table in found if table is not None]


def _compared_with(value: ir.Value) -> Array | None:
    """The constant that a scalar option is compared with: the value that the model knows of."""
    if value.shape is not None and len(value.shape) > 1:
        return None
    for node, index in _readers(value):
        other = constant(node.inputs[1 - index]) if node.op_type == "Equal" else None
        if other is not None and other.size == 1:
            return np.asarray(other).reshape(())
    return None


def _feed_back(model: ir.Model, states: list[ir.Value], signal: ir.Value | None, roles: Roles) -> Roles | str:
    """Pair every further real input with an output of its shape, the last ones first: results come before states.

    What has none, and the signal's shape, is its twin.
    """
    free = [v for v in reversed(model.graph.outputs) if v.dtype in (None, ir.DataType.FLOAT)]
    for value in reversed(states):
        if any(not isinstance(d, int) and not _is_batch(d, signal) for d in value.shape or ()):
            return f"input {value.name} is a state of no fixed size"
        match = next((v for v in free if _may_equal(value, v)), None)
        if match is None and signal is not None and _may_equal(value, signal):
            roles.twins.append(str(value.name))
            continue
        if match is None:
            return f"input {value.name} is neither a signal nor fed from an output: no prior for it"
        free.remove(match)
        roles.states[str(value.name)] = str(match.name)
    return roles


def _is_batch(dim: object, signal: ir.Value | None) -> bool:
    """True for the symbol that counts the signal's samples."""
    return signal is not None and bool(signal.shape) and dim == signal.shape[0]  # type: ignore[index]


def _may_equal(value: ir.Value, other: ir.Value) -> bool:
    if value.shape is None or other.shape is None or len(value.shape) != len(other.shape):
        return False
    pairs = zip(value.shape, other.shape, strict=True)
    return all(a == b or not isinstance(a, int) or not isinstance(b, int) for a, b in pairs)

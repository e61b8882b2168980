"""One step of `RNN`, `GRU` and `LSTM` as formulas, every variant of the specification: `STEPS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .formula import Formula
from .weights import Weights

__all__ = ["GATES", "STEPS", "Cell", "functions"]

Array = npt.NDArray[np.generic]
Value = ir.Value
# activation -> its parameters and what they are where the node does not say
_PARAMETERS: Mapping[str, Mapping[str, float]] = {
    "Affine": {"alpha": 1.0, "beta": 0.0},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "LeakyRelu": {"alpha": 0.01},
    "Relu": {},
    "ScaledTanh": {"alpha": 1.0, "beta": 1.0},
    "Sigmoid": {},
    "Softplus": {},
    "Softsign": {},
    "Tanh": {},
    "ThresholdedRelu": {"alpha": 1.0},
}
_SPELLINGS = {name.lower(): name for name in _PARAMETERS}
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_CELL_STATE = 2  # index of the activation of an LSTM's cell state, which ONNX Runtime does not clip


@dataclass(frozen=True)
class Cell:
    """One direction of a layer: recurrent weights as [hidden, gates · hidden], its biases, functions and options.

    peephole: [3 · hidden] of an LSTM that has them. bound: where arguments of the functions are clipped.
    """

    recurrent: Weights
    bias: Array
    peephole: Array | None
    functions: tuple[tuple[str, Mapping[str, float]], ...]
    bound: float
    options: Mapping[str, Any]

    @property
    def hidden(self) -> int:
        return int(self.recurrent.levels.shape[0])

    def apply(self, f: Formula, which: int, x: Value) -> Value:
        """Function number `which` of the cell."""
        name, parameters = self.functions[which]
        if self.bound and which != _CELL_STATE:
            x = f.op("Clip", x, *(f.constant(b, self.bias.dtype.name) for b in (-self.bound, self.bound)))
        if name not in ("Affine", "ScaledTanh"):
            return f.op(name, x, **parameters)
        alpha, beta = (f.constant(parameters[p], self.bias.dtype.name) for p in ("alpha", "beta"))
        if name == "Affine":
            return f.op("Add", f.op("Mul", x, alpha), beta)
        return f.op("Mul", alpha, f.op("Tanh", f.op("Mul", beta, x)))

    def product(self, f: Formula, h: Value, first: int, stop: int) -> Value:
        """h · Rᵀ of gates first ≤ i < stop."""
        n = self.hidden
        return self.recurrent.product(f, h, first * n, stop * n)

    def gates(self, f: Formula, sums: Value, *gates: int) -> list[Value]:
        """Columns of some gates."""
        n = self.hidden
        return [f.cut(sums, 1, gate * n, (gate + 1) * n) for gate in gates]


# one step: formula, cell, products with the input, states, and the bias that enters beside the state
Step = Callable[[Formula, Cell, Value, list[Value]], list[Value]]


def _rnn(f: Formula, cell: Cell, x: Value, state: list[Value]) -> list[Value]:
    """h = φ(x + h·Rᵀ)"""
    return [cell.apply(f, 0, f.op("Add", cell.product(f, state[0], 0, 1), x))]


def _gru(f: Formula, cell: Cell, x: Value, state: list[Value]) -> list[Value]:
    """z, r = σ(x + h·Rᵀ), g = φ(x + (r∘h)·Rᵀ) or φ(x + r∘(h·Rᵀ + b)), h = g + z∘(h − g)"""
    (h,) = state
    (kept,) = cell.gates(f, x, 2)
    if cell.options.get("linear_before_reset", 0):
        inner = f.op("Add", cell.product(f, h, 0, 3), f.constant(_late_bias(cell)))
        sums = f.op("Add", f.cut(x, 1, 0, 2 * cell.hidden), f.cut(inner, 1, 0, 2 * cell.hidden))
        z, r = (cell.apply(f, 0, gate) for gate in cell.gates(f, sums, 0, 1))
        g = cell.apply(f, 1, f.op("Add", kept, f.op("Mul", r, cell.gates(f, inner, 2)[0])))
    else:
        sums = f.op("Add", cell.product(f, h, 0, 2), f.cut(x, 1, 0, 2 * cell.hidden))
        z, r = (cell.apply(f, 0, gate) for gate in cell.gates(f, sums, 0, 1))
        g = cell.apply(f, 1, f.op("Add", cell.product(f, f.op("Mul", r, h), 2, 3), kept))
    return [f.op("Add", g, f.op("Mul", z, f.op("Sub", h, g)))]


def _late_bias(cell: Cell) -> Array:
    """The bias that the reset gate of a GRU with linear_before_reset lets through, 0 for the other gates."""
    late = np.zeros(3 * cell.hidden, cell.bias.dtype)
    late[2 * cell.hidden :] = cell.bias[5 * cell.hidden :]
    return late


def _lstm(f: Formula, cell: Cell, x: Value, state: list[Value]) -> list[Value]:
    """i, o, f, g = x + h·Rᵀ; c = σ(f)∘c + σ(i)∘φ(g), h = σ(o)∘φ(c)"""
    h, c = state
    enter, leave, keep, new = cell.gates(f, f.op("Add", cell.product(f, h, 0, 4), x), 0, 1, 2, 3)
    peepholes = None if cell.peephole is None else [f.constant(p) for p in np.split(cell.peephole, 3)]
    if peepholes is not None:
        enter = f.op("Add", enter, f.op("Mul", c, peepholes[0]))
        keep = f.op("Add", keep, f.op("Mul", c, peepholes[2]))
    enter = cell.apply(f, 0, enter)
    if cell.options.get("input_forget", 0):
        keep = f.op("Sub", f.constant(1, cell.bias.dtype.name), enter)
    else:
        keep = cell.apply(f, 0, keep)
    c = f.op("Add", f.op("Mul", keep, c), f.op("Mul", enter, cell.apply(f, 1, new)))
    if peepholes is not None:
        leave = f.op("Add", leave, f.op("Mul", c, peepholes[1]))
    return [f.op("Mul", cell.apply(f, 0, leave), cell.apply(f, 2, c)), c]


STEPS: Mapping[str, Step] = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}


def functions(
    kind: str, names: Sequence[str], alphas: Sequence[float], betas: Sequence[float], direction: int
) -> tuple[tuple[str, Mapping[str, float]], ...]:
    """The activations of one direction with their parameters; KeyError for a name that ONNX does not know."""
    count = len(_DEFAULTS[kind])
    found = []
    for i in range(direction * count, (direction + 1) * count):
        name = _SPELLINGS[(names[i] if names else _DEFAULTS[kind][i % count]).lower()]
        given = {p: values[i] for p, values in (("alpha", alphas), ("beta", betas)) if i < len(values)}
        found.append((name, {p: given.get(p, default) for p, default in _PARAMETERS[name].items()}))
    return tuple(found)

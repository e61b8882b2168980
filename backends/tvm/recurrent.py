"""`RNN`, `GRU` and `LSTM` in every variant of the specification: a product with all inputs, then one step a frame.

The step multiplies the last state with constant weights, as dense layers do, and fuses what follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.graph import constant
from .cells import GATES, STEPS, Cell, functions
from .control import Slice
from .formula import Formula
from .loops import Frames, refuse, repeat, whole
from .operators.located import Located
from .weights import directions

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["HANDLERS"]

Array = npt.NDArray[np.generic]
Value = ir.Value


def _recurrent(walk: Lowering, node: ir.Node) -> list[Located]:
    layer = _Layer(walk, node)
    directions = [layer.direction(d) for d in range(layer.directions)]
    last = [layer.joined([states[k] for _, states in directions], 0) for k in range(layer.states)]
    rows = layer.joined([y for y, _ in directions], 1) if layer.keeps else last[0]
    return [layer.placed(tensor, k) for k, tensor in enumerate((rows, *last))][: len(node.outputs)]


class _Layer:
    """A node with its weights; tensors are time-major whatever its layout."""

    def __init__(self, walk: Lowering, node: ir.Node) -> None:
        self.walk, self.node, self.program = walk, node, walk.program
        self.options = {name: a.value for name, a in node.attributes.items()}
        inputs = [*node.inputs, *[None] * 8][:8]
        (w, r), (b, p) = (directions(inputs[i]) for i in (1, 2)), (constant(inputs[i]) for i in (3, 7))
        if w is None or r is None or any(a is None and inputs[i] is not None for i, a in ((3, b), (7, p))):
            raise refuse(node, "its weights are not constant")
        self.weights, self.recurrent, self.peepholes = w, r, p
        self.x = self._major(inputs[0])
        self.directions, self.hidden = len(r), int(r[0].levels.shape[0])
        size = (self.directions, 2 * GATES[node.op_type] * self.hidden)
        self.bias = np.zeros(size, self.program.tensors[self.x].dtype) if b is None else b
        self.frames, self.batch, self.width = self.program.tensors[self.x].shape
        self.initial = [None if v is None else self._major(v) for v in inputs[5:7]]
        self.states = 2 if node.op_type == "LSTM" else 1
        self.keeps = bool(node.outputs[0].uses()) or node.outputs[0].is_graph_output()
        self.live = self._live(inputs[4])

    def direction(self, d: int) -> tuple[str, list[str]]:
        """Y as [frames, 1, batch, hidden] (or nothing worth reading), and the last states as [1, batch, hidden]."""
        cell = self._cell(d)
        backwards = d == 1 or self.options.get("direction", "forward") == "reverse"
        states = [self._state(k, d) for k in range(self.states)]
        inputs = [Frames(self._products(d), backwards)] + ([Frames(self.live, backwards)] if self.live else [])

        def step(states: list[str], frames: list[str]) -> tuple[list[str], list[str]]:
            f = Formula(self.node)
            before = [f.tensor(state) for state in states]
            after = STEPS[self.node.op_type](f, cell, f.tensor(frames[0]), before)
            wanted = list(after)
            if self.live:  # beyond its length a sequence keeps its state and gives zeros
                mask = f.tensor(frames[1])
                wanted = [f.op("Where", mask, new, old) for new, old in zip(after, before, strict=True)]
                wanted.append(f.op("Where", mask, after[0], f.constant(0, self.bias.dtype.name)))
            found = f.lower(self.walk, wanted)
            return found[: self.states], [found[-1 if self.live else 0]] if self.keeps else []

        last, rows = repeat(self.program, self.frames, states, inputs, step, [backwards] * self.keeps)
        size = (self.batch, self.hidden)
        finals = [self.program.view(state, (1, *size)) for state in last]
        return self.program.view(rows[0], (self.frames, 1, *size)) if rows else finals[0], finals

    def _cell(self, d: int) -> Cell:
        names, alphas, betas = (self.options.get(f"activation{suffix}") or [] for suffix in ("s", "_alpha", "_beta"))
        try:
            applied = functions(self.node.op_type, names, alphas, betas, d)
        except KeyError as error:
            raise refuse(self.node, f"its activation {error} is unknown") from error
        peephole = None if self.peepholes is None else self.peepholes[d]
        bound = float(self.options.get("clip", 0.0))
        return Cell(self.recurrent[d], self.bias[d], peephole, applied, bound, self.options)

    def _products(self, d: int) -> str:
        """x·Wᵀ + b for all frames, [frames, batch, gates · hidden]; all biases that no reset gate holds back."""
        size, n = GATES[self.node.op_type] * self.hidden, self.hidden
        bias: Any = np.add(self.bias[d, :size], self.bias[d, size:])
        if self.options.get("linear_before_reset", 0):
            bias[2 * n :] = self.bias[d, 2 * n : size]
        f = Formula(self.node)
        rows = f.tensor(self.program.view(self.x, (self.frames * self.batch, self.width)))
        (made,) = f.lower(self.walk, [f.op("Add", self.weights[d].product(f, rows), f.constant(bias))])
        return self.program.view(made, (self.frames, self.batch, size))

    def _state(self, k: int, d: int) -> str:
        """The initial state of a direction, [batch, hidden]."""
        size, given = (self.batch, self.hidden), self.initial[k]
        if given is None:
            return self.program.constant(np.zeros(size, self.bias.dtype))
        if self.directions == 1:
            return self.program.view(given, size)
        part = self.program.slice(given, size, Slice(d * self.program.tensors[given].bytes // self.directions))
        own = self.program.tensor("initial", size, self.bias.dtype.name)
        self.program.copy(part, own)
        return own

    def _live(self, lengths: Value | None) -> str | None:
        """Whether frames are within their sequence, bool [frames, batch, 1]; None where all sequences are whole."""
        if lengths is None:
            return None
        known = constant(lengths)
        if known is not None and bool(np.all(known >= self.frames)):  # type: ignore[operator]
            return None
        f = Formula(self.node)
        stated = f.constant(known) if known is not None else f.tensor(self.walk.rows(lengths))
        column = f.op("Reshape", stated, f.constant([1, self.batch, 1], "int64"))
        steps = f.constant(np.arange(self.frames).reshape(-1, 1, 1), "int32")
        return f.lower(self.walk, [f.op("Less", steps, column)])[0]

    def _major(self, value: Value | None) -> str:
        """The tensor of an input with time, or directions, first."""
        assert value is not None
        tensor = self.walk.rows(value)
        if not self.options.get("layout", 0):
            return tensor
        stated = self.program.tensors[tensor]
        shape = (stated.shape[1], stated.shape[0], *stated.shape[2:])
        return self.walk.as_onnx(Located(tensor, shape, stated.dtype, (1, 0, 2)))

    def joined(self, parts: list[str], axis: int) -> str:
        """Parts of the directions along an axis."""
        if len(parts) == 1:
            return parts[0]
        f = Formula(self.node)
        return f.lower(self.walk, [f.op("Concat", *(f.tensor(part) for part in parts), axis=axis)])[0]

    def placed(self, tensor: str, output: int) -> Located:
        """An output in the layout of the node: with the batch first in layout 1."""
        place = whole(self.program, tensor)
        if not self.options.get("layout", 0):
            return place
        if output == 0 and self.keeps:
            frames, directions, batch, hidden = place.shape
            return Located(tensor, (batch, frames, directions, hidden), place.dtype, (1, 2, 0, 3))
        directions, batch, hidden = place.shape
        return Located(tensor, (batch, directions, hidden), place.dtype, (1, 0, 2))


HANDLERS: Mapping[str, Callable[[Lowering, ir.Node], list[Located]]] = dict.fromkeys(STEPS, _recurrent)

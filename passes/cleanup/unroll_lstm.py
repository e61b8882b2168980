"""LSTM over a known number of steps, step by step in products, sigmoids and sums."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.graph import attribute, constant, static_shape
from ...ir.shapes import infer
from ..base import Pass
from ..context import Context
from .edit import Editor, bypass

__all__ = ["UnrollLstm"]

Array = npt.NDArray[np.generic]
_DEFAULTS = ["sigmoid", "tanh", "tanh"]
# attribute or input that changes the cell -> what it is called; none of them may be there
_VARIANTS = {"clip": "clipped cells", "input_forget": "coupled gates", "layout": "layout 1"}
_INPUTS = {4: "lengths of sequences", 7: "peepholes"}


@dataclass(frozen=True)
class UnrollLstm(Pass):
    """LSTM(x, W, R, B, h₀, c₀)  ⇒  for every step: i, o, f, g = Split(Gemm(x_t, W, b) + Gemm(h, R));
    c = σ(f)·c + σ(i)·tanh(g), h = σ(o)·tanh(c)

    For targets that quantize these and have no LSTM. steps: the longest sequence that is unrolled; nodes grow with it.
    """

    steps: int = 32
    name: ClassVar[str] = "unroll-lstm"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        infer(model)
        edit = Editor(model)
        for node in list(model.graph):
            if node.op_type != "LSTM" or node.domain not in ("", "ai.onnx"):
                continue
            size = static_shape(node.inputs[0])
            if reason := self._why_not(node, size):
                context.record.skip(node, reason)
                continue
            assert size is not None
            if context.record.change(node, f"{size[0]} steps"):
                _unroll(node, edit, size)

    def _why_not(self, node: ir.Node, size: tuple[int, ...] | None) -> str:
        if size is None:
            return "the shape of its input is not static"
        if size[0] > self.steps:
            return f"{size[0]} steps, more than {self.steps}"
        for name, what in _VARIANTS.items():
            if attribute(node, name, 0):
                return what
        for i, what in _INPUTS.items():
            if i < len(node.inputs) and node.inputs[i] is not None:
                return what
        names: Any = attribute(node, "activations") or []
        if any(str(name).lower() != _DEFAULTS[i % 3] for i, name in enumerate(names)):
            return "activations other than the default ones"
        if any(constant(v) is None for v in node.inputs[1:4] if v is not None):
            return "weights are not constant"
        return ""


@dataclass
class _Cell:
    """One direction: its recurrent weights [hidden, 4·hidden], and the node before which its steps are written."""

    node: ir.Node
    edit: Editor
    direction: int
    recurrent: ir.Value
    h: ir.Value | None = None
    c: ir.Value | None = None
    rows: dict[int, ir.Value] = field(default_factory=dict)

    def add(self, op: str, inputs: list[ir.Value | None], stem: str, **attributes: Any) -> ir.Value:
        name = f"{self.node.outputs[0].name or self.node.name or 'lstm'}.{self.direction}.{stem}"
        return self.edit.insert(self.node, op, inputs, attributes, name)

    def gates(self, sums: ir.Value) -> tuple[ir.Value, ...]:
        """i, o, f, g: four parts of the sums along the last axis."""
        hidden = int(self.recurrent.shape[0])  # type: ignore[index, arg-type]
        given: list[ir.Value | None] = [sums]
        attributes: dict[str, Any] = {"axis": 1}
        if self.edit.version >= 13:
            given.append(self.edit.constant("gates", [hidden] * 4))
        else:
            attributes["split"] = [hidden] * 4
        names = [self.edit.name(f"{sums.name}.{gate}") for gate in "iofg"]
        made = ir.node("Split", given, attributes=attributes, outputs=[ir.Value(name=n) for n in names])
        assert self.node.graph is not None
        self.node.graph.insert_before(self.node, made)
        return tuple(made.outputs)

    def step(self, x: ir.Value, t: int) -> None:
        """One step on the products with the input, which hold the bias."""
        sums = x
        if self.h is not None:
            sums = self.add("Add", [x, self.add("Gemm", [self.h, self.recurrent], f"recurrent{t}")], f"sums{t}")
        i, o, f, g = self.gates(sums)
        enter = self.add("Mul", [self.add("Sigmoid", [i], "i"), self.add("Tanh", [g], "g")], f"enter{t}")
        if self.c is not None:
            kept = self.add("Mul", [self.add("Sigmoid", [f], "f"), self.c], f"kept{t}")
            enter = self.add("Add", [kept, enter], f"c{t}")
        self.c = enter
        self.h = self.add("Mul", [self.add("Sigmoid", [o], "o"), self.add("Tanh", [self.c], "tanh")], f"h{t}")
        self.rows[t] = self.h


def _unroll(node: ir.Node, edit: Editor, size: tuple[int, ...]) -> None:
    frames, batch, width = size
    w, r, b = (None if i >= len(node.inputs) else constant(node.inputs[i]) for i in (1, 2, 3))
    assert w is not None and r is not None
    hidden = r.shape[2]
    bias = np.zeros((len(w), 8 * hidden), w.dtype) if b is None else b
    cells = []
    for d in range(len(w)):
        both = np.asarray(bias[d, : 4 * hidden]) + np.asarray(bias[d, 4 * hidden :])
        weight, recurrent, offset = (
            edit.constant(stem, np.ascontiguousarray(a))
            for stem, a in (("input", w[d].T), ("recurrent", r[d].T), ("offset", both))
        )
        cell = _Cell(node, edit, d, recurrent)
        cell.h, cell.c = (_state(cell, i, d, len(w)) for i in (5, 6))
        rows = cell.add("Reshape", [node.inputs[0], edit.constant("rows", [frames * batch, width])], "rows")
        products = cell.add("Gemm", [rows, weight, offset], "products")
        order = list(range(frames))
        if d == 1 or attribute(node, "direction", "forward") == "reverse":
            order.reverse()
        for t in order:
            cell.step(products if frames == 1 else _rows(cell, products, t * batch, batch), t)
        cells.append(cell)
    _results(node, edit, cells, (frames, batch, hidden))


def _rows(cell: _Cell, value: ir.Value, first: int, count: int) -> ir.Value:
    ends = [cell.edit.constant("bound", [n]) for n in (first, first + count, 0)]
    return cell.add("Slice", [value, *ends], f"rows{first}")


def _state(cell: _Cell, i: int, direction: int, directions: int) -> ir.Value | None:
    """An initial state of one direction, [batch, hidden]; None where it is zero."""
    value = cell.node.inputs[i] if i < len(cell.node.inputs) else None
    if value is None:
        return None
    if directions > 1:
        value = _rows(cell, value, direction, 1)
    axes, attributes = cell.edit.axes("Squeeze", [0], "direction")
    return cell.add("Squeeze", [value, *axes], f"state{i}", **attributes)


def _results(node: ir.Node, edit: Editor, cells: list[_Cell], size: tuple[int, int, int]) -> None:
    """Y [frames, directions, batch, hidden], Y_h and Y_c [directions, batch, hidden], where somebody reads them."""
    frames, batch, hidden = size
    shaped = edit.constant("shape", [1, 1, batch, hidden]), edit.constant("shape", [1, batch, hidden])
    states = ([cell.h for cell in cells], [cell.c for cell in cells])
    for k, output in enumerate(node.outputs):
        if not (output.uses() or output.is_graph_output()):
            continue
        if k:
            parts = [cells[d].add("Reshape", [v, shaped[1]], f"last{k}") for d, v in enumerate(states[k - 1])]
            made = _joined(cells[0], parts, 0)
        else:
            steps = [
                _joined(cells[0], [c.add("Reshape", [c.rows[t], shaped[0]], f"y{t}") for c in cells], 1)
                for t in range(frames)
            ]
            made = _joined(cells[0], steps, 0)
        bypass(output, made)


def _joined(cell: _Cell, parts: list[ir.Value], axis: int) -> ir.Value:
    return parts[0] if len(parts) == 1 else cell.add("Concat", list(parts), "joined", axis=axis)

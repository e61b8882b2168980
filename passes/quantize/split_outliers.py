"""`split-outliers`: input channels with the largest weights are read twice, at half weight each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.channels.atoms import IntArray
from ...ir.graph import attribute, constant
from ..base import Pass
from ..cleanup.edit import Editor
from ..context import Context
from .legality import weight_axis, why_not_matrix

__all__ = ["SplitOutliers", "split"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SplitOutliers(Pass):
    """x·W  ⇒  Gather(x, [0 … C−1, c₁, c₂ …])·W′: the columns of max|W| are halved into two

    expand: share of input channels to add; levels: highest level of the weights, which sets the step Δ that the
    halves (w ∓ Δ/2)/2 are apart by, so that rounding both sums to rounding w. For weights with one scale per tensor.
    Depthwise and grouped convolutions are left, as is a layer whose largest weights spread over its channels evenly.
    (Zhao et al. 2019, section 3)
    """

    expand: float = 0.02
    levels: int = 127
    name: ClassVar[str] = "split-outliers"

    def __post_init__(self) -> None:
        if not 0 < self.expand <= 1 or self.levels < 1:
            raise ValueError("expand must be in 0 … 1, levels at least 1")

    def run(self, model: ir.Model, context: Context) -> None:
        edit = Editor(model)
        for node in list(model.graph):
            if node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
                continue
            reason = why_not_matrix(node)
            if not reason and attribute(node, "group", 1) != 1:
                reason = "grouped: a channel more would need a group more"
            if reason:
                context.record.skip(node, reason)
                continue
            weight = constant(node.inputs[1])
            assert weight is not None
            axis = 1 if node.op_type == "Conv" else 1 - weight_axis(node)
            columns = np.moveaxis(np.asarray(weight, np.float64), axis, 0)
            wide, source = split(columns, int(np.ceil(self.expand * len(columns))), self.levels)
            before, after = np.abs(columns).max(initial=0.0), np.abs(wide).max(initial=0.0)
            if not after < before:
                context.record.skip(node, "splitting its largest channels leaves the range as it is")
            elif context.record.change(
                node, f"{len(source) - len(columns)} channels, max|W| {before:.3g} to {after:.3g}"
            ):
                _widen(node, np.moveaxis(wide, 0, axis), source, edit)


def split(columns: Floats, extra: int, levels: int) -> tuple[Floats, IntArray]:
    """`extra` times: the column with max|w| becomes ((w − Δ/2)/2, (w + Δ/2)/2), Δ = max|w| / levels at the start.

    columns: [C, …]. Returns [C + extra, …] and the input channel that each reads. With rounding half up,
    round((w − ½)/2) + round((w + ½)/2) = round(w) in units of Δ.
    """
    parts, source = list(columns), list(range(len(columns)))
    step = float(np.abs(columns).max(initial=0.0)) / levels
    largest = [float(np.abs(part).max(initial=0.0)) for part in parts]
    for _ in range(extra):
        c = int(np.argmax(largest))
        low, high = (parts[c] - step / 2) / 2, (parts[c] + step / 2) / 2
        parts[c] = low
        parts.append(high)
        source.append(source[c])
        largest[c] = float(np.abs(low).max(initial=0.0))
        largest.append(float(np.abs(high).max(initial=0.0)))
    return np.stack(parts), np.asarray(source, np.int64)


def _widen(node: ir.Node, weight: Floats, source: IntArray, edit: Editor) -> None:
    x, old = node.inputs[0], node.inputs[1]
    assert x is not None and old is not None
    axis = -1 if node.op_type == "MatMul" else 1
    index = edit.constant(f"{x.name}_channels", source)
    wide = edit.insert(node, "Gather", [x, index], {"axis": axis}, f"{x.name}_widened")
    wide.dtype = ir.DataType.FLOAT
    node.replace_input_with(0, wide)
    stored = np.asarray(weight, np.float32, order="C")
    node.replace_input_with(1, edit.constant(str(old.name), stored))

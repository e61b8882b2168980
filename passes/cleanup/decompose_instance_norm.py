"""InstanceNormalization as the means, products and convolutions that integer kernels exist for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import attribute, constant
from ...ir.shapes import infer
from ..base import Pass
from ..context import Context
from .edit import Editor, become

__all__ = ["DecomposeInstanceNorm"]


@dataclass(frozen=True)
class DecomposeInstanceNorm(Pass):
    """InstanceNormalization(x, γ, β)  ⇒  d = x − mean(x);  Conv(d · (mean(d²) + ε)^−0.5, γ, β)

    The convolution multiplies each channel by its γ, so that both are weights with a scale for each channel. ε is the
    bias of another one, over a single element. For targets that quantize the pieces; others have one kernel.
    """

    name: ClassVar[str] = "decompose-instance-norm"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        edit = Editor(model)
        for node in list(model.graph):
            if node.op_type != "InstanceNormalization" or node.domain not in ("", "ai.onnx"):
                continue
            rank = shapes.rank(node.inputs[0])
            scale, shift = constant(node.inputs[1]), constant(node.inputs[2])
            if rank is None or rank < 3:
                context.record.skip(node, "its operand has no known spatial axes")
            elif scale is None or shift is None:
                context.record.skip(node, "scale or shift is not constant")
            elif scale.dtype != np.float32:
                context.record.skip(node, f"works on {scale.dtype}, not float32")
            elif context.record.change(node, f"{len(scale)} channels"):
                _decompose(node, edit, rank, scale, shift)


def _decompose(node: ir.Node, edit: Editor, rank: int, scale: np.ndarray, shift: np.ndarray) -> None:
    x, stem, ones = node.inputs[0], str(node.outputs[0].name), (1,) * (rank - 1)
    assert x is not None
    per_channel = {"group": len(scale), "kernel_shape": [1] * (rank - 2)}
    epsilon = float(attribute(node, "epsilon", 1e-5))  # type: ignore[arg-type]

    def add(op: str, inputs: list[ir.Value], name: str, **attributes: object) -> ir.Value:
        return edit.insert(node, op, inputs, attributes, f"{stem}.{name}")

    def mean(value: ir.Value, name: str) -> ir.Value:
        axes, attributes = edit.axes("ReduceMean", list(range(2, rank)), stem)
        return add("ReduceMean", [value, *axes], name, keepdims=1, **attributes)

    centred = add("Sub", [x, mean(x, "mean")], "centred")
    variance = mean(add("Mul", [centred, centred], "squared"), "variance")
    weight = edit.constant(f"{stem}.ones", np.ones((len(scale), *ones), np.float32))
    bias = edit.constant(f"{stem}.epsilon", np.full(len(scale), epsilon, np.float32))
    above = add("Conv", [variance, weight, bias], "variance_epsilon", **per_channel)
    inverse = add("Pow", [above, edit.constant("inverse_root", np.asarray(-0.5, np.float32))], "inverse_deviation")
    unit = add("Mul", [centred, inverse], "unit")
    gamma = edit.constant(f"{stem}.scale", np.asarray(scale, np.float32).reshape(-1, *ones))
    beta = edit.constant(f"{stem}.shift", np.asarray(shift, np.float32))
    become(node, "Conv", [unit, gamma, beta], per_channel)

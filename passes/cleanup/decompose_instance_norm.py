"""InstanceNormalization as the means, products and convolutions that integer kernels exist for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ModelError
from ...ir.graph import attribute, constant, is_constant, only_consumer, weight_bytes
from ...ir.probe import LARGEST_OBSERVED, Probe, with_shapes
from ...ir.shapes import infer
from ..base import Pass
from ..context import Context
from .edit import Editor, become

__all__ = ["DecomposeInstanceNorm"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
_FLOOR = 1e-3  # of the widest channel: one that is silent on made inputs may speak on real ones


@dataclass(frozen=True)
class DecomposeInstanceNorm(Pass):
    """InstanceNormalization(x, γ, β)  ⇒  d = x − mean(x);  Conv(d · (mean(d²) + ε)^−0.5, γ, β)

    The convolution multiplies each channel by its γ, so that both are weights with a scale for each channel. ε is the
    bias of another one, over a single element. For targets that quantize the pieces; others have one kernel.
    Where x comes from a convolution that nobody else reads, and inputs are known, the weights of each of its channels
    are divided by the channel's spread s (and ε by s²), which changes nothing, but gives all channels, and all
    variances, one range.
    """

    name: ClassVar[str] = "decompose-instance-norm"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        edit = Editor(model)
        nodes = [n for n in model.graph if n.op_type == "InstanceNormalization" and n.domain in ("", "ai.onnx")]
        spreads = _spreads(model, nodes, context)
        for node in nodes:
            rank = shapes.rank(node.inputs[0])
            scale, shift = constant(node.inputs[1]), constant(node.inputs[2])
            if rank is None or rank < 3:
                context.record.skip(node, "its operand has no known spatial axes")
            elif scale is None or shift is None:
                context.record.skip(node, "scale or shift is not constant")
            elif scale.dtype != np.float32:
                context.record.skip(node, f"works on {scale.dtype}, not float32")
            elif context.record.change(node, f"{len(scale)} channels"):
                epsilon = np.full(len(scale), float(attribute(node, "epsilon", 1e-5)), np.float32)  # type: ignore[arg-type]
                if node in spreads:
                    epsilon = (epsilon / np.square(spreads[node])).astype(np.float32)
                    _divide(node.inputs[0], spreads[node])
                _decompose(node, edit, rank, (scale, shift, epsilon))


def _spreads(model: ir.Model, nodes: list[ir.Node], context: Context) -> dict[ir.Node, Floats]:
    """Standard deviation of every channel of the operands that can be rescaled, on samples or synthesised inputs."""
    feeds = list(context.data or context.synthetic or ())
    usable = {str(n.inputs[0].name): n for n in nodes if n.inputs[0] is not None and _convolution(n.inputs[0])}
    if not feeds or not usable or weight_bytes(model) > LARGEST_OBSERVED:
        return {}
    try:
        observed = Probe(with_shapes(model), list(usable), extremes=False)(feeds)
    except ModelError as error:
        context.record.note(f"channels keep their own spreads: {error.what}")
        return {}
    stds = {name: np.asarray(moments.std, np.float64) for name, moments in observed.items()}
    return {usable[name]: np.maximum(std, _FLOOR * std.max()) for name, std in stds.items() if std.max() > 0}


def _convolution(value: ir.Value | None) -> ir.Node | None:
    """The Conv that makes a value for one reader alone, from weights that it alone reads."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Conv" or node.domain not in ("", "ai.onnx") or only_consumer(value) is None:  # type: ignore[arg-type]
        return None
    parameters = [v for v in node.inputs[1:] if v is not None]
    owned = all(is_constant(v) and v.is_initializer() and len(list(v.uses())) == 1 for v in parameters)
    return node if owned else None


def _divide(value: ir.Value | None, spread: Floats) -> None:
    """Weights and bias of the convolution behind a value, divided channel by channel."""
    node = _convolution(value)
    assert node is not None
    for parameter in (v for v in node.inputs[1:] if v is not None):
        array = constant(parameter)
        assert array is not None
        divided = np.asarray(array, np.float64) / spread.reshape(-1, *(1,) * (array.ndim - 1))
        parameter.const_value = ir.Tensor(divided.astype(np.float32), name=parameter.name)


def _decompose(node: ir.Node, edit: Editor, rank: int, parameters: tuple[Array, Array, Array]) -> None:
    x, stem, ones = node.inputs[0], str(node.outputs[0].name), (1,) * (rank - 1)
    scale, shift, epsilon = parameters
    assert x is not None
    per_channel = {"group": len(scale), "kernel_shape": [1] * (rank - 2)}

    def add(op: str, inputs: list[ir.Value], name: str, **attributes: object) -> ir.Value:
        return edit.insert(node, op, inputs, attributes, f"{stem}.{name}")

    def mean(value: ir.Value, name: str) -> ir.Value:
        axes, attributes = edit.axes("ReduceMean", list(range(2, rank)), stem)
        return add("ReduceMean", [value, *axes], name, keepdims=1, **attributes)

    centred = add("Sub", [x, mean(x, "mean")], "centred")
    variance = mean(add("Mul", [centred, centred], "squared"), "variance")
    weight = edit.constant(f"{stem}.ones", np.ones((len(scale), *ones), np.float32))
    bias = edit.constant(f"{stem}.epsilon", epsilon)
    above = add("Conv", [variance, weight, bias], "variance_epsilon", **per_channel)
    inverse = add("Pow", [above, edit.constant("inverse_root", np.asarray(-0.5, np.float32))], "inverse_deviation")
    unit = add("Mul", [centred, inverse], "unit")
    gamma = edit.constant(f"{stem}.scale", np.asarray(scale, np.float32).reshape(-1, *ones))
    beta = edit.constant(f"{stem}.shift", np.asarray(shift, np.float32))
    become(node, "Conv", [unit, gamma, beta], per_channel)

"""`round-weights`: weights rounded layer by layer, each making up for its own errors and those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ModelError
from ...ir.graph import weight_bytes
from ...ir.layers import Layer, layer_of, sample_rows
from ...ir.probe import LARGEST_OBSERVED
from ...ir.quantization import Encoding
from ...ir.shapes import infer
from ...ir.walk import Walk
from ..base import Pass
from ..context import Context
from ..synthesize.renormalise import renormalise
from ..synthesize.typicality import stored_statistics
from .gptq import solve
from .moments import InputMoments
from .weights import FORMATS

__all__ = ["RoundWeights", "round_layers", "store"]

Floats = npt.NDArray[np.float64]
_FEWEST = 4096  # windows, where a layer has few inputs
Solver = Callable[[Floats, Floats], tuple[Floats, Floats]]


@dataclass(frozen=True)
class RoundWeights(Pass):
    """W, b  ⇒  s·q, b′ with E‖W·x + b − s·q·x̂ − b′‖² least: x in the float model, x̂ behind the layers rounded before

    weights: levels of 8, 4, 3 or 2 bits or `ternary`, one scale per output channel, which `quantize` then takes over.
    zero-points: a channel may use its 16, 8 or 4 levels around a zero point of its own, which int8 holds as well.
    rows: input windows looked at per layer; damping: ridge, in units of the inputs' mean variance; sweeps: of
    coordinate descent behind GPTQ; follow: answer to the errors of earlier layers, else only to the layer's own.
    The inputs are the user's samples or those of a synthesize pass, best of `vary-inputs`; behind made ones, values are
    brought to the moments that BatchNorm left.
    """

    weights: Literal["int8", "int4", "int3", "int2", "ternary"] = "int4"
    zero_points: bool = True
    rows: int = 16384
    damping: float = 0.5
    sweeps: int = 3
    follow: bool = True
    name: ClassVar[str] = "round-weights"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        low, high = FORMATS[self.weights]
        zero_points = self.zero_points and self.weights not in ("int8", "ternary")

        def solver(weight: Floats, hessian: Floats) -> tuple[Floats, Floats]:
            return solve(weight, hessian, low, high, self.sweeps, zero_points)

        round_layers(model, context, solver, rows=self.rows, damping=self.damping, follow=self.follow)


def round_layers(
    model: ir.Model, context: Context, solver: Solver, *, rows: int, damping: float, follow: bool = True
) -> None:
    """Round the weights of every layer in order; `solver` gives levels and scales for weights and H of its inputs.

    Where BatchNorm left the moments of training, values behind made inputs are brought to them, in the float model
    and in the one rounded so far alike.
    """
    feeds = context.fitting()
    infer(model)
    layers = [(node, layer_of(node)) for node in model.graph if node.op_type in ("Conv", "Gemm", "MatMul")]
    if not feeds or weight_bytes(model) > LARGEST_OBSERVED:
        reason = "no inputs to observe the layers on" if not feeds else "the model is too large to be run here"
        for node, _ in layers:
            context.record.skip(node, reason)
        return
    try:
        original = model.clone()
        if not context.data and any(stored_statistics(v) for node in original.graph for v in node.outputs):
            context.record.measures["renormalised_values"] = renormalise(original, feeds)
        rounded = original.clone()
        twins = [{str(node.outputs[0].name): node for node in copy.graph} for copy in (rounded, original)]
        now, before = Walk(rounded, feeds), Walk(original, feeds)
        for done, (node, layer) in enumerate(layers):
            context.progress("rounding weights", done / len(layers))
            if layer is None:
                context.record.skip(node, "its weights are shared, not constant, or of a form that is not looked at")
                continue
            copy, twin = (layer_of(nodes[str(node.outputs[0].name)]) for nodes in twins)
            assert copy is not None and twin is not None
            moments = _observe(copy, twin, now, before, rows, context.rng(), follow)
            _round(layer, copy, moments, solver, damping, context)
    except ModelError as error:
        context.record.skip("model", f"it could not be observed from here on: {error.what}")


def _observe(
    layer: Layer, twin: Layer, now: Walk, before: Walk, rows: int, rng: np.random.Generator, follow: bool
) -> InputMoments:
    """The moments of a layer's inputs, from the same windows of both models."""
    source, source_now = twin.node.inputs[0], layer.node.inputs[0]
    assert source is not None and source_now is not None
    inputs, outputs = before.get([source, twin.node.outputs[0]])
    width, share = len(twin.matrix()), -(-min(rows, _needed(layer)) // len(inputs))
    picked = [sample_rows(np.asarray(y).size // width, share, rng) for y in outputs]

    def windows(values: Sequence[npt.NDArray[np.generic]]) -> Floats:
        parts = [layer.rows(np.asarray(v, np.float32), at) for v, at in zip(values, picked, strict=True)]
        return np.concatenate(parts)

    x = windows(inputs)
    before.release(set())
    x_now = windows(now.get([source_now])[0]) if follow else x
    now.release(set())
    return InputMoments.of(x, x_now)


def _needed(layer: Layer) -> int:
    """Windows that tell the covariance of a layer's inputs about as well as 16 times their number does."""
    matrix = layer.matrix()
    return max(_FEWEST, 16 * int(matrix.shape[2] if layer.depthwise else matrix[0].size))


def _round(layer: Layer, copy: Layer, moments: InputMoments, solver: Solver, damping: float, context: Context) -> None:
    """Round the layer, and its copy in the model that is observed."""
    matrix = np.asarray(layer.matrix(), np.float64)
    outputs = len(matrix)
    groups = len(moments.mean)
    weight = matrix.reshape(groups, outputs // groups, -1)
    hessian = moments.damped(damping) if layer.has_offset else moments.second(damping)
    wanted = moments.wanted(weight, damping)
    levels, scale = solver(wanted, hessian)
    rounded = levels * scale[:, :, None]
    if not context.record.change(layer.node, _detail(wanted, rounded, hessian)):
        return
    for changed in (layer, copy):
        store(changed, levels, scale, moments.shift(weight, rounded).ravel())


def store(layer: Layer, levels: Floats, scale: Floats, shift: Floats) -> None:
    """Put s·q into the layer's weight, with its encoding for `quantize`, and add the shift to its bias if it has one.

    levels: [groups, rows, n]; scale: [groups, rows]; shift: [outputs].
    """
    rounded = (levels * scale[:, :, None]).reshape(layer.matrix().shape)
    layer.store(rounded, layer.offset() + shift if layer.has_offset else layer.offset())
    axis = 0 if layer.node.op_type == "Conv" else 1 - layer.in_axis
    scales = np.asarray(scale.ravel(), np.float32)
    Encoding(scales, np.zeros(len(scales), np.int32), ir.DataType.INT8, axis).attach(layer.weight)


def _detail(wanted: Floats, rounded: Floats, hessian: Floats) -> str:
    def power(w: Floats) -> float:
        return float(np.einsum("gri,gri->", w @ hessian, w))

    ratio = power(wanted - rounded) / max(power(wanted), 1e-300)
    return f"{-10 * np.log10(max(ratio, 1e-20)):.1f} dB"

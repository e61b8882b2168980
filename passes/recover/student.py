"""A model as a trainable torch module and back: float weights as they are, Q/DQ weights as the floats they round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from ...ir.fx import Bridge, to_fx
from ...ir.fx.tensors import array_of
from ...ir.graph import constant, initializer
from ...ir.quantization import Encoding
from ..quantize.weights import bias_levels
from .fake_quantize import Rule
from .few_levels import absorb_clips, follow_steps
from .parameters import Unit, reparametrize, value_of
from .rounding import Bounds, fuse

__all__ = ["Student"]

Array = npt.NDArray[np.generic]

_RANGES = 2.5  # a rounded weight moves by so many times its slice's range where a float one moves by 1


@dataclass(frozen=True)
class _Stored:
    """Integer contents of an initialiser that training replaces by floats: how to make them integers again."""

    levels: str
    scale: str
    dtype: ir.DataType
    axis: int | None
    bounds: Bounds


@dataclass
class Student:
    """A model under training.

    Rounded weights are trained in units of what their levels reach, steps in units of themselves.
    """

    model: ir.Model
    form: ir.Model  # the model with floats in place of integers, as the module computes it
    bridge: Bridge
    _stored: Mapping[str, _Stored] = field(repr=False)
    _tied: Mapping[str, Sequence[str]] = field(repr=False)
    _units: Mapping[str, Unit] = field(repr=False)  # by path of the parameter
    _narrow: Mapping[str, tuple[int, int]] = field(repr=False)  # levels in use, by the QuantizeLinear of an activation

    @classmethod
    def of(
        cls,
        model: ir.Model,
        taps: Sequence[str] = (),
        *,
        floats: Mapping[str, Array] | None = None,
        delta: float = 0.0,
        rule: Rule = "lsq",
        squash: bool = False,
    ) -> Student:
        """The student of a model, float or Q/DQ, which is not touched until `write_back`.

        taps: values to return beside the outputs; floats: what integer initialisers held before they were rounded.
        delta, rule: backward pass of the rounding (`fake_quantize`); squash: weights as DoReFa rounds them.
        """
        form = model.clone()
        narrow = absorb_clips(form) if rule != "fixed" else {}
        stored = _unpack(form, floats or {})
        tied = _tie(form)
        bridge = to_fx(with_outputs(form, taps))
        fuse(bridge, {latent: s.bounds for latent, s in stored.items()} | narrow, delta, rule)
        units = _units(form, bridge, stored, tied, squash)
        reparametrize(bridge, units)
        return cls(model, form, bridge, stored, tied, units, narrow)

    @property
    def module(self) -> Any:
        return self.bridge.module

    def parameter_groups(self, learning_rate: float, step_rate: float) -> list[dict[str, Any]]:
        """Float weights, rounded weights and quantization steps, each with a learning rate of its own.

        step_rate: share of itself that a quantization step may move by in one step of training.
        """
        floats: list[Any] = []
        rounded: list[Any] = []
        steps: list[Any] = []
        for path, parameter in self.module.named_parameters():
            is_step = self.bridge.weights[path].name in self._tied
            (steps if is_step else rounded if path in self._units else floats).append(parameter)
        rates = (learning_rate, _RANGES * learning_rate, step_rate)
        return [{"params": p, "lr": r} for p, r in zip((floats, rounded, steps), rates, strict=True) if p]

    def keep_steps_positive(self) -> None:
        """A step of 0 or less means nothing: hold each at the smallest normal number or above."""
        with torch.no_grad():
            for path, parameter in self.module.named_parameters():
                if self.bridge.weights[path].name in self._tied:
                    parameter.clamp_(min=float(np.finfo(np.float32).tiny))

    def write_back(self) -> list[str]:
        """Put what was learned into the initialisers of the model; the names of those that changed."""
        learned = {str(v.name): array_of(self._tensor(path)) for path, v in self.bridge.weights.items()}
        before = {name: value.const_value for name, value in self.model.graph.initializers.items()}
        for first, names in self._tied.items():
            for name in names:
                if first in learned:
                    _store(self.model, name, learned[first].astype(np.float32))
        for name, value in learned.items():
            if name in self.model.graph.initializers and name not in self._tied and value.dtype.kind == "f":
                _store(self.model, name, value)
        for latent, stored in self._stored.items():
            if latent in learned:
                self._pack(stored, learned[latent])
        follow_steps(self.model, self._narrow)
        _refresh_encodings(self.model)
        now = self.model.graph.initializers
        return [name for name, value in before.items() if name not in now or now[name].const_value is not value]

    def _tensor(self, path: str) -> Any:
        parent, _, name = path.rpartition(".")
        tensor = getattr(self.module.get_submodule(parent), name)
        return value_of(tensor, *self._units[path].tensors()) if path in self._units else tensor

    def _pack(self, stored: _Stored, value: Array) -> None:
        initializers = self.model.graph.initializers
        if stored.dtype == ir.DataType.INT32:
            scale = _bias_scale(initializers[stored.levels])
            _store(self.model, stored.scale, scale)
            _store(self.model, stored.levels, bias_levels(value, scale))
            return
        scale = np.asarray(constant(initializers[stored.scale]), np.float32)
        encoding = Encoding(scale, np.zeros(scale.shape, np.int32), stored.dtype, stored.axis)
        levels = np.clip(encoding.quantize(value), *stored.bounds)
        _store(self.model, stored.levels, levels.astype(stored.dtype.numpy()))


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """The model with more of its values as outputs, in the order given."""
    values = {v.name: v for node in model.graph for v in node.outputs}
    model.graph.outputs.extend(values[name] for name in names)
    return model


def _unpack(model: ir.Model, floats: Mapping[str, Array]) -> dict[str, _Stored]:
    """Replace integer weights and biases by floats of the same value: W_q → DQ  ⇒  W → Q → DQ, b_q → DQ  ⇒  b."""
    graph, found = model.graph, {}
    for node in list(graph):
        if node.op_type != "DequantizeLinear" or node.inputs[0] is None or not _symmetric(node):
            continue
        value, scale = node.inputs[0], node.inputs[1]
        levels, step = constant(value), constant(scale)
        if levels is None or step is None or value.dtype is None or scale is None:
            continue
        axis = node.attributes.get_int("axis", 1) if step.ndim else None
        encoding = Encoding(np.asarray(step, np.float32), np.zeros(step.shape, np.int32), value.dtype, axis)
        contents = floats.get(str(value.name))
        if contents is None or contents.shape != levels.shape:
            contents = encoding.dequantize(levels)
        latent = initializer(graph, f"{value.name}_latent", np.asarray(contents, np.float32))
        bounds = _bounds(levels, axis)
        found[str(latent.name)] = _Stored(str(value.name), str(scale.name), value.dtype, axis, bounds)
        if value.dtype == ir.DataType.INT32:
            node.outputs[0].replace_all_uses_with(latent)
            graph.remove(node, safe=True)
            continue
        quantize = ir.Node(
            "", "QuantizeLinear", [latent, *node.inputs[1:]], list(node.attributes.values()), num_outputs=1
        )
        quantize.outputs[0].name, quantize.outputs[0].dtype = f"{value.name}_relearned", value.dtype
        graph.insert_before(node, [quantize])
        node.replace_input_with(0, quantize.outputs[0])
    return found


def _bounds(levels: Array, axis: int | None) -> Bounds:
    """The levels in use; where each slice has its own window of them, one for each, as wide as the widest."""
    low, high = int(levels.min(initial=0)), int(levels.max(initial=0))
    if axis is None or not levels.size:
        return low, high
    others = tuple(i for i in range(levels.ndim) if i != axis)
    lows = np.minimum(levels.min(others, keepdims=True), 0).astype(np.int32)
    highs = np.maximum(levels.max(others, keepdims=True), 0).astype(np.int32)
    widest = int((highs - lows).max())
    if widest == high - low:
        return low, high
    lows = np.maximum(lows - (widest - (highs - lows)) // 2, low)
    return lows, np.minimum(lows + widest, high)


def _symmetric(node: ir.Node) -> bool:
    """No zero point, or one of 0: what weights and biases have."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    contents = constant(zero)
    return zero is None or (contents is not None and not np.any(contents))


def _tie(model: ir.Model) -> dict[str, list[str]]:
    """Make equal steps of activations one initialiser, so that values that share a scale go on sharing it.

    Returns the names of all steps by the name of the one that is trained for them; a weight's step stands for itself.
    """
    first: dict[tuple[bytes, bytes], ir.Value] = {}
    tied: dict[str, list[str]] = {}
    for node in model.graph:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.inputs[1] is None:
            continue
        scale, zero = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
        contents = constant(scale)
        if contents is None:
            continue
        key = (contents.tobytes(), b"" if zero is None else np.asarray(constant(zero)).tobytes())
        leader = first.setdefault(key, scale) if not contents.ndim else scale
        names = tied.setdefault(str(leader.name), [])
        if scale.name not in names:
            names.append(str(scale.name))
        node.replace_input_with(1, leader)
    return tied


def _units(
    model: ir.Model, bridge: Bridge, stored: Mapping[str, _Stored], tied: Mapping[str, Sequence[str]], squash: bool
) -> dict[str, Unit]:
    """What parameters are multiples of, by their paths: steps of themselves, rounded weights of what levels reach."""
    found = {}
    for path, value in bridge.weights.items():
        name, contents = str(value.name), constant(value)
        if name in tied:
            found[path] = Unit(np.array(contents, np.float32))
        elif name in stored and stored[name].dtype != ir.DataType.INT32 and contents is not None:
            step = np.asarray(constant(model.graph.initializers[stored[name].scale]), np.float32)
            axes = range(contents.ndim)
            alike = tuple(i for i in axes if not step.ndim or i != stored[name].axis)  # axes along which a step holds
            size = step.reshape([1 if i in alike else -1 for i in axes])
            largest = np.abs(contents).max(alike, keepdims=True) if squash else None
            lowest, highest = stored[name].bounds
            most = np.maximum(np.maximum(np.abs(lowest), np.abs(highest)), 1)
            found[path] = Unit(np.asarray(size * most, np.float32), largest)
    return found


def _store(model: ir.Model, name: str, array: Array) -> None:
    value = model.graph.initializers[name]
    before = value.const_value
    assert before is not None
    after = np.asarray(array, before.dtype.numpy()).reshape(before.shape.numpy())
    if np.ascontiguousarray(before.numpy()).tobytes() != np.ascontiguousarray(after).tobytes():
        value.const_value = ir.Tensor(after, dtype=before.dtype, name=name)


def _bias_scale(levels: ir.Value) -> npt.NDArray[np.float32]:
    """`s_x·s_w` of the node that reads a bias, computed in float64 and rounded once."""
    reader = next(iter(levels.uses())).node
    anchor = next(iter(reader.outputs[0].uses())).node
    factors = []
    for value in anchor.inputs[:2]:
        producer = value.producer() if value is not None else None
        assert producer is not None and producer.op_type == "DequantizeLinear"
        factors.append(np.asarray(constant(producer.inputs[1]), np.float64))
    return np.asarray(factors[0] * factors[1], np.float32)


def _refresh_encodings(model: ir.Model) -> None:
    """The encodings that are noted on dequantized values follow their scales."""
    for node in model.graph:
        if node.op_type == "DequantizeLinear" and (noted := Encoding.of(node.outputs[0])) is not None:
            scale = constant(node.inputs[1])
            if scale is not None:
                encoding = Encoding(np.asarray(scale, np.float32), noted.zero_point, noted.dtype, noted.axis)
                encoding.attach(node.outputs[0])

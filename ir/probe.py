"""Observe a model: moments of any of its values on given inputs, reduced inside the graph to save memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..errors import ModelError
from . import metadata
from .execute import Session
from .shapes import fix_dimensions, infer
from .statistics import Moments

__all__ = ["LARGEST_OBSERVED", "Probe", "channel_axis", "renormalised", "with_shapes"]

Array = npt.NDArray[np.generic]
LARGEST_OBSERVED = 1 << 30  # bytes of weights: a model is serialised to be run, and a protobuf ends at 2 GiB
_LAST_AXIS = frozenset({"MatMul", "Gemm", "LayerNormalization"})  # their channels are the last axis; else axis 1


def with_shapes(model: ir.Model, fixed: Mapping[str, Sequence[int]] | None = None) -> ir.Model:
    """A copy of the model with types and shapes inferred, from fixed shapes of its inputs where given."""
    copy = model.clone()
    if fixed:
        fix_dimensions(copy, fixed)
    infer(copy)
    return copy


def channel_axis(value: ir.Value) -> int | None:
    """The axis that counts channels; None for values without one."""
    rank = len(value.shape) if value.shape is not None else 0
    if rank < 2:
        return None
    producer = value.producer()
    return rank - 1 if producer is not None and producer.op_type in _LAST_AXIS else 1


class _Builder:
    """Appends float arithmetic to the end of a graph (or after a node), in the operator forms of its opset."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.opset = model.opset_imports.get("", 1)
        self.count = 0
        self.made: list[ir.Node] = []

    def __call__(self, op: str, *inputs: ir.Value, attributes: Sequence[ir.Attr] = ()) -> ir.Value:
        node = ir.Node("", op, inputs, attributes, num_outputs=1)
        self.count += 1
        node.outputs[0].name = f"planish_probe_{self.count}"
        node.outputs[0].dtype = ir.DataType.FLOAT
        self.made.append(node)
        return node.outputs[0]

    def reduce(self, op: str, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        keep = ir.AttrInt64("keepdims", 1)
        if self.opset >= 18:
            return self(op, x, self.constant(np.asarray(axes, np.int64)), attributes=[keep])
        return self(op, x, attributes=[keep, ir.AttrInt64s("axes", list(axes))])

    def constant(self, array: Array) -> ir.Value:
        self.count += 1
        value = ir.Value(name=f"planish_probe_{self.count}", const_value=ir.Tensor(array))
        value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        self.graph.register_initializer(value)
        return value

    def place(self, after: ir.Node | None = None) -> None:
        """Insert what was made: after a node, at the start of the graph's tail otherwise."""
        if after is None:
            self.graph.extend(self.made)
        else:
            self.graph.insert_after(after, self.made)
        self.made = []


class Probe:
    """Moments per channel (`channel_axis`) of the named values; made once, run on many feeds.

    The values must have a known rank (`with_shapes`); memory is that of one run.
    extremes: also find the lowest and highest; without them the range is mean ± 0.
    """

    def __init__(self, model: ir.Model, names: Sequence[str], *, extremes: bool = True, threads: int = 0) -> None:
        copy = model.clone()
        values = {v.name: v for v in copy.graph.inputs} | {v.name: v for node in copy.graph for v in node.outputs}
        build = _Builder(copy)
        probes = {name: _probe(build, values[name], extremes) for name in names}
        build.place()
        _forget_names_of_sizes(copy)
        copy.graph.outputs.clear()
        for probe in probes.values():
            copy.graph.outputs.extend(probe)
        self._fetch = {name: [str(v.name) for v in probe] for name, probe in probes.items()}
        self._session = Session(copy, threads=threads)

    def __call__(self, feeds: Sequence[Mapping[str, Array]]) -> dict[str, Moments]:
        """Over all feeds, which must be equally large."""
        observed: dict[str, list[Moments]] = {name: [] for name in self._fetch}
        for feed in feeds:
            try:
                result = self._session(feed)
            except Exception as error:  # the runtime's own exception types are not public
                raise ModelError(
                    f"the model does not run: {str(error)[:300]}", hint="give samples with --data"
                ) from error
            for name, fetch in self._fetch.items():
                mean, variance, *ends = (np.asarray(result[n], np.float64) for n in fetch)
                mean, spread = mean.ravel(), np.sqrt(np.maximum(variance.ravel(), 0.0))
                lows, highs = (end.reshape(-1, len(mean)) for end in ends or (mean, mean))
                peaks = np.stack([lows.min(1), highs.max(1)], 1) if ends else None
                observed[name].append(Moments(mean, spread, lows.min(0), highs.max(0), peaks))
        return {name: Moments.pooled(parts) for name, parts in observed.items()}


def _forget_names_of_sizes(model: ir.Model) -> None:
    """Names of dynamic sizes are promises to the runtime's memory planner, and exporters do not always keep them."""
    for value in (*model.graph.inputs, *(v for node in model.graph for v in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([d if isinstance(d, int) else None for d in value.shape])


def _probe(build: _Builder, value: ir.Value, extremes: bool) -> list[ir.Value]:
    rank = len(value.shape) if value.shape is not None else 0
    keep = channel_axis(value)
    axes = [i for i in range(rank) if i != keep]
    mean = build.reduce("ReduceMean", value, axes)
    centred = build("Sub", value, mean)
    variance = build.reduce("ReduceMean", build("Mul", centred, centred), axes)
    if not extremes:
        return [mean, variance]
    within = axes[1:] if keep is not None else axes  # one sample after the other
    if not within:
        return [mean, variance, value, value]
    return [mean, variance, build.reduce("ReduceMin", value, within), build.reduce("ReduceMax", value, within)]


def renormalised(model: ir.Model, floor: float = 1e-6) -> ir.Model:
    """A copy in which every value with stored statistics is shifted and scaled, per channel and over the batch that is
    run, to its stored mean and standard deviation: v ← (v − mean(v))/std(v)·σ + μ.

    floor: a channel whose standard deviation is below it only gets the mean.
    """
    copy = model.clone()
    for node in list(copy.graph):
        for value in node.outputs:
            fact = metadata.get(value, metadata.STATISTICS)
            if fact is not None and value.shape is not None:
                _renormalise(copy, node, value, fact, floor)
    return copy


def _renormalise(model: ir.Model, node: ir.Node, value: ir.Value, fact: Mapping[str, object], floor: float) -> None:
    rank, axis = len(value.shape or ()), int(fact.get("axis", 1))  # type: ignore[call-overload]
    shape = [1] * rank
    shape[axis] = -1
    mean = np.asarray(fact["mean"], np.float32).reshape(shape)
    std = np.asarray(fact["std"], np.float32).reshape(shape)
    build = _Builder(model)
    build.count = 10_000_000 + sum(1 for _ in model.graph) * 32
    axes = [i for i in range(rank) if i != axis]
    uses = list(value.uses())
    centred = build("Sub", value, build.reduce("ReduceMean", value, axes))
    variance = build.reduce("ReduceMean", build("Mul", centred, centred), axes)
    spread = build("Sqrt", build("Add", variance, build.constant(np.asarray(floor**2, np.float32))))
    unit = build("Div", centred, spread)
    result = build("Add", build("Mul", unit, build.constant(std)), build.constant(mean))
    result.shape, result.dtype = value.shape, ir.DataType.FLOAT
    build.place(after=node)
    for use in uses:
        use.node.replace_input_with(use.idx, result)
    name = str(value.name)
    value.name, result.name = f"{name}_before_renormalisation", name
    outputs = model.graph.outputs
    for index, output in enumerate(outputs):
        if output is value:
            outputs[index] = result

"""The numpy reference: `run` executes the integer plan of a model; back ends are compared with it to the bit.

Integer steps run in numpy (`kernels.py`, `optional_kernels.py`). Float nodes run as they stand in ONNX Runtime,
unoptimised, each maximal run of consecutive float nodes as one session, `If` and `Loop` with their subgraphs included.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from ..errors import ModelError, UsageError
from .integer import FloatNode, IntegerOp, Step, plan
from .kernels import KERNELS
from .optional_kernels import OPTIONAL
from .shapes import fix_dimensions, infer

__all__ = ["Reference", "execute_step", "run"]

Array = npt.NDArray[np.generic]


def run(model: ir.Model, feeds: Mapping[str, Array], fetch: Sequence[str] | None = None) -> dict[str, Array]:
    """Execute the model once in the arithmetic of `planish.ir.integer`; see `Reference`."""
    return Reference(model, fetch)(feeds)


def execute_step(op: IntegerOp, values: Mapping[str, Array]) -> dict[str, Array]:
    """The results of one integer operation, given the values it reads by name (constants are its own)."""
    operands = [values[o.value] if o.constant is None else o.constant for o in op.inputs]
    kernel = KERNELS.get(op.kind) or OPTIONAL[op.kind]
    return dict(zip(op.outputs, kernel(op, operands), strict=True))


class Reference:
    """A model that is planned once for each set of input shapes and run many times; it is only read.

    fetch: names to return, graph outputs when None. Any value that exists in the plan can be fetched: inputs, results
    of Q and DQ nodes, of float nodes, and of integer operations; not what is fused into another operation.
    """

    def __init__(self, model: ir.Model, fetch: Sequence[str] | None = None) -> None:
        self.model = model
        self.fetch = list(fetch) if fetch is not None else [str(v.name) for v in model.graph.outputs]
        self._programs: dict[tuple[tuple[str, tuple[int, ...]], ...], _Program] = {}

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        feeds = self._complete(feeds)
        key = tuple(sorted((name, array.shape) for name, array in feeds.items()))
        if key not in self._programs:
            self._programs[key] = _Program(self.model, dict(key), self.fetch)
        return self._programs[key].run(feeds)

    def _complete(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        names = [str(v.name) for v in self.model.graph.inputs]
        optional = self.model.graph.initializers
        missing = [n for n in names if n not in feeds and n not in optional]
        unknown = [n for n in feeds if n not in names]
        if missing or unknown:
            what = f"input {missing[0]!r} is missing" if missing else f"the model has no input {unknown[0]!r}"
            raise UsageError(what, where="feeds of the reference", hint=f"the inputs are: {', '.join(names)}")
        return {name: np.asarray(array) for name, array in feeds.items()}


class _Program:
    """The plan for one set of input shapes: integer steps and float sessions in order, and when values die."""

    def __init__(self, model: ir.Model, shapes: Mapping[str, Sequence[int]], fetch: Sequence[str]) -> None:
        self.fetch = fetch
        self.model = model.clone()
        fix_dimensions(self.model, shapes)
        self._expose(fetch)
        infer(self.model)
        self.steps = plan(self.model)
        known = {str(v.name) for v in self.model.graph.inputs} | set(self.model.graph.initializers)
        known |= {name for step in self.steps for name in step.outputs}
        for name in fetch:
            if name not in known:
                raise UsageError(
                    f"value {name!r} does not exist in the integer plan",
                    where="fetch of the reference",
                    hint="it is unknown, or fused into the operation behind it; fetch that operation's result",
                )
        self.parts = list(self._parts())
        self.last_use = {name: i for i, part in enumerate(self.parts) for name in _reads(part)}

    def _expose(self, fetch: Sequence[str]) -> None:
        """Make fetched results of Q and DQ nodes graph outputs, which does not change how the others are read."""
        graph = self.model.graph
        outputs = {v.name for v in graph.outputs}
        for node in graph:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                graph.outputs.extend(v for v in node.outputs if v.name in fetch and v.name not in outputs)

    def _parts(self) -> Iterable[IntegerOp | _FloatRun]:
        steps = self.steps
        needed = set(self.fetch)
        later: list[set[str]] = []
        for step in reversed(steps):
            later.append(set(needed))
            needed |= set(_reads(step))
        at = 0
        for is_float, group in itertools.groupby(steps, lambda s: isinstance(s, FloatNode)):
            members = list(group)
            at += len(members)
            if is_float:
                nodes = [s for s in members if isinstance(s, FloatNode)]
                yield _FloatRun(self.model, nodes, later[len(steps) - at])
            else:
                yield from (s for s in members if isinstance(s, IntegerOp))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        values = dict(feeds)
        kept = set(self.fetch)
        for i, part in enumerate(self.parts):
            reads = _reads(part)
            given = {name: self._value(values, name) for name in reads}
            values |= part(given) if isinstance(part, _FloatRun) else execute_step(part, given)
            for name in reads:
                if self.last_use[name] == i and name not in kept:
                    values.pop(name, None)
        return {name: self._value(values, name) for name in self.fetch}

    def _value(self, values: Mapping[str, Array], name: str) -> Array:
        if name in values:
            return values[name]
        tensor = self.model.graph.initializers[name].const_value
        assert tensor is not None
        return tensor.numpy()


class _FloatRun:
    """Consecutive float nodes as one ONNX Runtime session, made when the types of its operands are first seen."""

    def __init__(self, model: ir.Model, steps: Sequence[FloatNode], needed: set[str]) -> None:
        made = {name for step in steps for name in step.outputs}
        reads = dict.fromkeys(name for step in steps for name in step.inputs if name not in made)
        constants = model.graph.initializers
        inputs = {str(v.name) for v in model.graph.inputs}
        self.model, self.steps = model, steps
        self.constants = [name for name in reads if name in constants and name not in inputs]
        self.inputs = [name for name in reads if name not in self.constants]
        self.outputs = [name for step in steps for name in step.outputs if name in needed]
        self._session: Any = None

    def __call__(self, values: Mapping[str, Array]) -> dict[str, Array]:
        if not self.outputs:
            return {}
        if self._session is None:
            self._session = self._load({name: values[name] for name in self.inputs})
        results = self._session.run(self.outputs, {name: values[name] for name in self.inputs})
        return dict(zip(self.outputs, results, strict=True))

    def _load(self, values: Mapping[str, Array]) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        data = self._proto(values).SerializeToString()
        try:
            return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            nodes = ", ".join(f"{s.node.op_type} {s.node.name or s.outputs[0]}" for s in self.steps[:3])
            raise ModelError(
                f"ONNX Runtime does not run a float part of the model: {str(error)[:400]}",
                where=nodes,
                hint="check that ONNX Runtime runs the whole model; the operator may need an older or newer opset",
            ) from error

    def _proto(self, values: Mapping[str, Array]) -> onnx.ModelProto:
        constants = self.model.graph.initializers
        inputs = [_describe(name, array) for name, array in values.items()]
        graph = onnx.helper.make_graph(
            [ir.serde.serialize_node(step.node) for step in self.steps],
            "float_part",
            inputs,
            [onnx.ValueInfoProto(name=name) for name in self.outputs],
            [_tensor(constants[name]) for name in self.constants],
        )
        opsets = [onnx.helper.make_opsetid(d, v) for d, v in self.model.graph.opset_imports.items()]
        functions = [ir.serde.serialize_function(f) for f in self.model.functions.values()]
        return onnx.helper.make_model(
            graph, opset_imports=opsets, functions=functions, ir_version=min(self.model.ir_version, 10)
        )


def _describe(name: str, array: Array) -> onnx.ValueInfoProto:
    element = ir.DataType.STRING if array.dtype == object else ir.DataType.from_numpy(array.dtype)
    return onnx.helper.make_tensor_value_info(name, int(element), [None] * array.ndim)


def _tensor(value: ir.Value) -> onnx.TensorProto:
    """The initialiser's tensor, under the initialiser's name."""
    assert value.const_value is not None
    proto = ir.serde.serialize_tensor(value.const_value)
    proto.name = value.name
    return proto


def _reads(part: Step | _FloatRun) -> list[str]:
    """Names of the values a part reads; constants it carries are not among them."""
    if isinstance(part, _FloatRun):
        return part.inputs
    if isinstance(part, FloatNode):
        return list(part.inputs)
    return list(dict.fromkeys(o.value for o in part.inputs if o.constant is None))

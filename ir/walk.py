"""Execute a model piece by piece, so that weights can change between the pieces and every node runs once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .execute import Session
from .graph import is_constant

__all__ = ["Walk"]

Array = npt.NDArray[np.generic]


class Walk:
    """The values of a model on some feeds, computed on demand and dropped after their last reader ran.

    held: values that stay after their last reader ran, for somebody who asks later, until they are taken out of it.
    """

    def __init__(self, model: ir.Model, feeds: Sequence[Mapping[str, Array]], held: Iterable[ir.Value] = ()) -> None:
        self._model = model
        self.held = set(held)
        self._values: list[dict[str, Array]] = [dict(feed) for feed in feeds]
        self._done: set[ir.Node] = set()
        self._readers: Counter[ir.Value] = Counter()
        self.refresh(model)

    def refresh(self, model: ir.Model) -> None:
        """Take note of nodes that were inserted after the point reached."""
        left = (node for node in model.graph if node not in self._done)
        self._readers = Counter(v for node in left for v in node.inputs if v is not None)

    def get(self, values: Sequence[ir.Value]) -> list[list[Array]]:
        """The values on every feed: one list per value. Runs the nodes that are still missing for them."""
        missing = [v for v in values if str(v.name) not in self._values[0]]
        if missing:
            self._run(missing)
        return [[env[str(v.name)] for env in self._values] for v in values]

    def release(self, keep: set[ir.Value]) -> None:
        """Drop values that every reader has seen, except `keep` and those held."""
        names = {str(v.name) for v in keep | self.held}
        alive = {str(v.name) for v, n in self._readers.items() if n > 0} | names
        for env in self._values:
            for name in [n for n in env if n not in alive]:
                del env[name]

    def _run(self, wanted: Sequence[ir.Value]) -> None:
        nodes = self._needed(wanted)
        inside = {v for node in nodes for v in node.outputs}
        for node in nodes:
            self._readers.subtract(v for v in node.inputs if v is not None)
        wanted_names = {str(v.name) for v in wanted}
        fetch = [v for v in inside if self._readers[v] > 0 or v in self.held or str(v.name) in wanted_names]
        fetch.sort(key=lambda v: str(v.name))
        entering = {
            v for node in nodes for v in node.inputs if v is not None and v not in inside and not is_constant(v)
        }
        session = Session(self._piece(nodes, sorted(entering, key=lambda v: str(v.name)), fetch))
        for env in self._values:
            env.update(session({str(v.name): env[str(v.name)] for v in entering}))
        self._done.update(nodes)

    def missing(self, value: ir.Value) -> list[ir.Node]:
        """The nodes that still have to run before the value is known."""
        return self._needed([value])

    def _needed(self, wanted: Sequence[ir.Value]) -> list[ir.Node]:
        needed: set[ir.Node] = set()
        stack = [p for v in wanted if (p := v.producer()) is not None]
        while stack:
            node = stack.pop()
            if node in needed or node in self._done:
                continue
            needed.add(node)
            stack += [p for v in node.inputs if v is not None and (p := v.producer()) is not None]
        return [node for node in self._model.graph if node in needed]

    def _piece(self, nodes: Sequence[ir.Node], entering: Sequence[ir.Value], fetch: Sequence[ir.Value]) -> ir.Model:
        clones: dict[ir.Value, ir.Value] = {}
        for value in entering:
            clones[value] = ir.Value(name=value.name, type=value.type or ir.TensorType(ir.DataType.FLOAT))
            if value.shape is not None:
                clones[value].shape = ir.Shape([None] * len(value.shape))
        constants = []
        made = []
        for node in nodes:
            for v in node.inputs:
                if v is not None and v not in clones and is_constant(v) and v.producer() is None:
                    clones[v] = ir.Value(name=v.name, const_value=v.const_value, type=v.type, shape=v.shape)
                    constants.append(clones[v])
            inputs = [None if v is None else clones[v] for v in node.inputs]
            copy = ir.Node(
                node.domain, node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs)
            )
            for old, new in zip(node.outputs, copy.outputs, strict=True):
                new.name, new.type = old.name, old.type
                clones[old] = new
            made.append(copy)
        graph = ir.Graph(
            [clones[v] for v in entering],
            [clones[v] for v in fetch],
            nodes=made,
            initializers=constants,
            opset_imports=dict(self._model.graph.opset_imports),
            name="piece",
        )
        return ir.Model(graph, ir_version=self._model.ir_version)

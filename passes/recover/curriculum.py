"""Module replacing: every step a replaced block is, by chance, the new one or the original; the chance grows to 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from ...ir import metadata
from ...ir.fx import Bridge, to_fx

__all__ = ["CURRICULA", "ModuleReplacing", "linear", "logarithmic"]

_START = 0.5  # chance of a new block at the first step
_SHARPNESS = 30.0  # κ of the logarithmic curriculum: most of its rise is in the first tenth
_REPLACING = 0.5  # share of the steps after which all blocks are new and are trained together


def linear(share: float) -> float:
    """`p = p₀ + (1 − p₀)·t`. Source: BERT-of-Theseus, EMNLP 2020."""
    return min(1.0, _START + (1.0 - _START) * share)


def logarithmic(share: float) -> float:
    """`p = p₀ + (1 − p₀)·log(1 + κt) / log(1 + κ)`: fast early, slow as the new blocks take over (LCMR, 2022)."""
    return min(1.0, _START + (1.0 - _START) * math.log1p(_SHARPNESS * share) / math.log1p(_SHARPNESS))


CURRICULA: Mapping[str, Callable[[float], float]] = {"linear": linear, "log": logarithmic}


class ModuleReplacing:
    """Switches at a student's replaced blocks: its own, or the original's frozen one, through which gradients pass.

    One draw a block and step, the same for the whole batch, so that recurrent blocks keep their state's meaning.
    """

    def __init__(self, student: Bridge, model: ir.Model, original: ir.Model, curriculum: str, seed: int) -> None:
        self._chance = CURRICULA[curriculum]
        self._draw = torch.Generator().manual_seed(seed)
        self.switches: list[_Switch] = []
        graph = student.module.graph
        for node in list(model.graph):
            fact = metadata.get(node.outputs[0], metadata.REPLACED)
            if fact is None:
                continue
            nodes = _between(original, fact["input"], fact["output"])
            places = _places(graph, model, fact["input"], str(node.name))
            if not nodes or places is None:
                continue
            switch = _Switch(to_fx(original, nodes, trainable=False).module)
            entry, exit_ = places
            name = f"predecessor_{len(self.switches)}"
            student.module.add_submodule(name, switch)
            with graph.inserting_after(exit_):
                chosen = graph.call_module(name, (entry, exit_))
            exit_.replace_all_uses_with(chosen, delete_user_cb=lambda user, chosen=chosen: user is not chosen)
            self.switches.append(switch)
        student.module.recompile()

    def step(self, share: float) -> None:
        """Draw for a step, `share` of the training being over."""
        chance = 1.0 if share >= _REPLACING else self._chance(share / _REPLACING)
        for switch in self.switches:
            switch.new = bool(torch.rand((), generator=self._draw) < chance)

    def all_new(self) -> None:
        """What is judged and what comes back is the student alone."""
        for switch in self.switches:
            switch.new = True


class _Switch(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, predecessor: Any) -> None:
        super().__init__()
        self.predecessor = predecessor
        self.new = True

    def forward(self, entry: Any, successor: Any) -> Any:
        return successor if self.new else self.predecessor(entry)[0]


def _between(model: ir.Model, entry: str, exit_: str) -> Sequence[ir.Node]:
    """The nodes that compute one value from another alone; none when it takes more than that."""
    values = {v.name: v for node in model.graph for v in node.outputs}
    if exit_ not in values:
        return []
    found: dict[ir.Node, None] = {}
    waiting = [values[exit_]]
    while waiting:
        value = waiting.pop()
        producer = value.producer()
        if value.name == entry or value.const_value is not None:
            continue
        if producer is None:
            return []
        found[producer] = None
        waiting += [v for v in producer.inputs if v is not None]
    return list(found)


def _places(graph: Any, model: ir.Model, entry: str, last: str) -> tuple[Any, Any] | None:
    """The FX nodes that hold a block's input and its result."""
    producers = {v.name: str(node.name) for node in model.graph for v in node.outputs}
    by_site = {node.meta["onnx"]: node for node in graph.nodes if node.meta.get("onnx")}
    inputs = [str(v.name) for v in model.graph.inputs]
    holders = [node for node in graph.nodes if node.op == "placeholder"]
    source = holders[inputs.index(entry)] if entry in inputs else by_site.get(producers.get(entry, ""))
    result = by_site.get(last)
    return None if source is None or result is None else (source, result)

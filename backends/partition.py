"""Parts of a model for an accelerator and for the CPU beside it: what a plug-in for an NPU starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..ir.integer import FloatNode, Step
from .compiled import Placement

__all__ = ["Part", "partition", "placements", "submodel"]


@dataclass(frozen=True)
class Part:
    """Steps of the integer plan that run together, in order, on the NPU or on the CPU.

    inputs, outputs: names of the values that it reads from elsewhere and that are read elsewhere.
    """

    on_npu: bool
    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def partition(model: ir.Model, steps: Sequence[Step], refuse: Callable[[Step], str]) -> list[Part]:
    """The steps of `plan(model)` in as few parts as their order allows; each part reads results of earlier ones only.

    refuse: why the NPU does not take a step, "" when it does. Steps that share a value which the graph does not name
    stay together: where one of them is refused, all of them run on the CPU.
    """
    groups = _groups(model, steps)
    makes = {name: i for i, group in enumerate(groups) for step in group for name in step.outputs}
    on_npu = [not any(refuse(step) for step in group) for group in groups]
    waits = [{makes[name] for step in group for name in _reads(step) if name in makes} for group in groups]
    left, done, device = list(range(len(groups))), set[int](), True
    members: list[tuple[bool, list[Step]]] = []
    while left:
        taken: list[int] = []
        for i in left:  # a group waits for earlier ones only, so one look at each finds all that can run by now
            if on_npu[i] == device and waits[i] <= done | {i}:
                taken.append(i)
                done.add(i)
        left = [i for i in left if i not in done]
        if taken:
            members.append((device, [step for i in taken for step in groups[i]]))
        device = not device
    wanted = {str(v.name) for v in model.graph.outputs}
    return [_part(place, own, [other for _, other in members if other is not own], wanted) for place, own in members]


def submodel(model: ir.Model, part: Part) -> ir.Model:
    """The nodes of a part as a model of its own, for a back end that takes models."""
    graph = ir.convenience.extract(model.graph, part.inputs, part.outputs)
    graph.opset_imports.update(model.graph.opset_imports)
    found = ir.Model(graph, ir_version=model.ir_version)
    found.functions.update(model.functions)
    return found.clone()


def placements(parts: Sequence[Part], refuse: Callable[[Step], str]) -> list[Placement]:
    """What reports and `--explain` show: where each node runs, and why not on the NPU."""
    beside = "it stays with a neighbour that runs on the CPU"
    return [
        Placement(
            step.node.name or step.outputs[0],
            step.node.op_type,
            "float32" if isinstance(step, FloatNode) else "int8",
            "NPU" if part.on_npu else "CPU",
            "" if part.on_npu else refuse(step) or beside,
        )
        for part in parts
        for step in part.steps
    ]


def _reads(step: Step) -> Iterator[str]:
    if isinstance(step, FloatNode):
        yield from step.inputs
    else:
        yield from (operand.value for operand in step.inputs if operand.constant is None)


def _groups(model: ir.Model, steps: Sequence[Step]) -> list[list[Step]]:
    """The shortest runs of consecutive steps between which every value is one of the graph."""
    named = {v.name for node in model.graph for v in node.outputs}
    last = {name: i for i, step in enumerate(steps) for name in _reads(step)}
    groups: list[list[Step]] = [[]]
    reach = 0
    for i, step in enumerate(steps):
        groups[-1].append(step)
        reach = max([reach, *(last.get(name, i) for name in step.outputs if name not in named)])
        if reach <= i:
            groups.append([])
    return groups[:-1] if not groups[-1] else groups


def _part(on_npu: bool, own: list[Step], others: list[list[Step]], wanted: set[str]) -> Part:
    made = {name for step in own for name in step.outputs}
    elsewhere = {name for other in others for step in other for name in _reads(step)}
    reads = dict.fromkeys(name for step in own for name in _reads(step) if name not in made)
    outputs = [name for step in own for name in step.outputs if name in elsewhere | wanted]
    return Part(on_npu, tuple(own), tuple(reads), tuple(outputs))

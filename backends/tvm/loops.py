"""`If`, `Loop`, `Scan` and `CumSum`: blocks of calls, with what iterations carry in fixed memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ...errors import ModelError
from ...ir.graph import attribute, constant
from .control import Slice
from .formula import Formula
from .operators.located import Located, row_major
from .program import ALIGNMENT, Program

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["HANDLERS", "Frames", "refuse", "repeat", "whole"]

# what an iteration computes from tensors of its states and frames: the next states, and results to keep
Body = Callable[[list[str], list[str]], tuple[Sequence[str], Sequence[str]]]


@dataclass(frozen=True)
class Frames:
    """A tensor of which every iteration reads the next frame along the first axis, or writes it."""

    tensor: str
    backwards: bool = False


def repeat(
    program: Program, trips: int, states: Sequence[str], inputs: Sequence[Frames], body: Body, kept: Sequence[bool]
) -> tuple[list[str], list[str]]:
    """Append `trips` iterations; returns tensors of the last states, and of the results stacked along a first axis.

    kept: for each of the body's results, whether its frames are written backwards.
    """
    if trips == 1:
        new, results = body(list(states), [_frame(program, frames, trips, "") for frames in inputs])
        return list(new), [program.view(r, (1, *program.tensors[r].shape)) for r in results]
    slots = [_copied(program, state, "state") for state in states]
    with program.loop(trips) as variable:
        new, results = body(slots, [_frame(program, frames, trips, variable) for frames in inputs])
        stacks = []
        for result, backwards in zip(results, kept, strict=True):
            tensor = program.tensors[result]
            stacks.append(program.tensor("stack", (trips, *tensor.shape), tensor.dtype))
            program.copy(result, _part(program, Frames(stacks[-1], backwards), trips, variable))
        _advance(program, new, slots)
    return slots, stacks


def _advance(program: Program, new: Sequence[str], slots: Sequence[str]) -> None:
    """Write the next states where the next iteration reads them; states that trade places go through copies."""
    moved = [
        _copied(program, tensor, "next") if program.storage(tensor) in slots and tensor != slot else tensor
        for tensor, slot in zip(new, slots, strict=True)
    ]
    for tensor, slot in zip(moved, slots, strict=True):
        if tensor != slot:
            program.copy(tensor, slot)


def _copied(program: Program, tensor: str, stem: str) -> str:
    stated = program.tensors[tensor]
    copy = program.tensor(stem, stated.shape, stated.dtype)
    program.copy(tensor, copy)
    return copy


def _frame(program: Program, frames: Frames, trips: int, variable: str) -> str:
    """One frame as kernels read it: at a multiple of the alignment."""
    part = _part(program, frames, trips, variable)
    whole_lines = program.tensors[part].bytes % ALIGNMENT == 0
    return part if trips == 1 or whole_lines else _copied(program, part, "frame")


def _part(program: Program, frames: Frames, trips: int, variable: str) -> str:
    shape = program.tensors[frames.tensor].shape[1:]
    if trips == 1:
        return program.view(frames.tensor, shape)
    size = program.tensors[frames.tensor].bytes // trips
    place = Slice((trips - 1) * size, -size, variable) if frames.backwards else Slice(0, size, variable)
    return program.slice(frames.tensor, shape, place)


def whole(program: Program, tensor: str) -> Located:
    """A row-major tensor as a value of its shape."""
    stated = program.tensors[tensor]
    return Located(tensor, stated.shape, stated.dtype, row_major(len(stated.shape)))


def refuse(node: ir.Node, why: str) -> ModelError:
    """The error for a node whose form compiled code does not have."""
    return ModelError(
        f"operator {node.op_type} cannot be compiled: {why}",
        where=f"{node.op_type} node {node.name!r}",
        hint="model.onnx runs in ONNX Runtime; for machine code, replace the operator",
    )


def _body(node: ir.Node, name: str) -> ir.Graph:
    graph: Any = attribute(node, name)
    assert isinstance(graph, ir.Graph)
    return graph


def _if(walk: Lowering, node: ir.Node) -> list[Located]:
    """The branch that a known condition chooses; else both, of which one runs."""
    condition = constant(node.inputs[0])
    branches = {True: _body(node, "then_branch"), False: _body(node, "else_branch")}
    if condition is not None:
        return [whole(walk.program, tensor) for tensor in walk.graph(branches[bool(condition)], ())]
    if not walk.machine.branches:
        raise refuse(node, f"its condition is computed on {walk.target.name}, and calls do not wait for it")
    flag, program = walk.rows(node.inputs[0]), walk.program  # type: ignore[arg-type]
    results: list[str] = []
    for taken, graph in branches.items():
        with program.branch(flag, taken):
            found = walk.graph(graph, ())
            if taken:
                results = [program.tensor("chosen", program.tensors[t].shape, program.tensors[t].dtype) for t in found]
            for tensor, result in zip(found, results, strict=True):
                if program.tensors[tensor].shape != program.tensors[result].shape:
                    raise refuse(node, "its branches make tensors of different shapes")
                program.copy(tensor, result)
    return [whole(program, result) for result in results]


def _loop(walk: Lowering, node: ir.Node) -> list[Located]:
    """A known number of iterations whose condition never ends them."""
    trips, going = constant(node.inputs[0]), [*node.inputs, None][1]
    body, program = _body(node, "body"), walk.program
    if trips is None:
        raise refuse(node, "how often it runs depends on the input")
    if not _is_true(going) or not (_is_true(body.outputs[0]) or _original(body.outputs[0]) is body.inputs[1]):
        raise refuse(node, "its condition depends on the input")
    if int(trips) < 1:
        raise refuse(node, "it never runs")
    count = program.constant(np.arange(int(trips), dtype=np.int64))
    states = [walk.rows(value) for value in node.inputs[2:] if value is not None]

    def iteration(states: list[str], frames: list[str]) -> tuple[list[str], list[str]]:
        given = [frames[0], program.constant(np.array(True)), *states]
        _, *found = walk.graph(body, [whole(program, tensor) for tensor in given])
        return found[: len(states)], found[len(states) :]

    kept = [False] * (len(node.outputs) - len(states))
    last, stacks = repeat(program, int(trips), states, [Frames(count)], iteration, kept)
    return [whole(program, tensor) for tensor in (*last, *stacks)]


def _original(value: ir.Value) -> ir.Value:
    """The value behind copies of it."""
    while (node := value.producer()) is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        value = node.inputs[0]
    return value


def _is_true(value: ir.Value | None) -> bool:
    found = True if value is None else constant(_original(value))
    return found is not None and bool(found)


def _scan(walk: Lowering, node: ir.Node) -> list[Located]:
    """One iteration for each frame of its inputs."""
    if walk.model.opset_imports.get("", 0) < 9:
        raise refuse(node, "it scans batches, which operator set 9 has ended; convert the model")
    count: Any = attribute(node, "num_scan_inputs")
    body, program, carried = _body(node, "body"), walk.program, len(node.inputs) - count
    states = [walk.rows(value) for value in node.inputs[:carried] if value is not None]
    frames = []
    for value, axis, backwards in zip(
        node.inputs[carried:],
        _each(node, "scan_input_axes", count),
        _each(node, "scan_input_directions", count),
        strict=True,
    ):
        assert value is not None
        moved = _moved_first(whole(program, walk.rows(value)), axis)
        frames.append(Frames(walk.as_onnx(moved), bool(backwards)))

    def iteration(states: list[str], parts: list[str]) -> tuple[list[str], list[str]]:
        found = walk.graph(body, [whole(program, tensor) for tensor in (*states, *parts)])
        return found[:carried], found[carried:]

    results = len(node.outputs) - carried
    kept = [bool(backwards) for backwards in _each(node, "scan_output_directions", results)]
    trips = program.tensors[frames[0].tensor].shape[0]
    last, stacks = repeat(program, trips, states, frames, iteration, kept)
    axes = _each(node, "scan_output_axes", results)
    stacked = [_moved(whole(program, stack), axis) for stack, axis in zip(stacks, axes, strict=True)]
    return [*(whole(program, tensor) for tensor in last), *stacked]


def _each(node: ir.Node, name: str, count: int) -> Sequence[int]:
    given: Any = attribute(node, name)
    return [0] * count if given is None else list(given)


def _moved_first(place: Located, axis: int) -> Located:
    """The value with one of its axes first."""
    order = [axis % len(place.shape)]
    order += [a for a in range(len(place.shape)) if a not in order]
    layout = tuple(order.index(a) for a in place.layout)
    return Located(place.tensor, tuple(place.shape[a] for a in order), place.dtype, layout)


def _moved(place: Located, axis: int) -> Located:
    """The value whose first stored axis is axis number `axis`."""
    shape = list(place.shape[1:])
    position = axis % len(place.shape)
    shape.insert(position, place.shape[0])
    return Located(
        place.tensor, tuple(shape), place.dtype, (position, *(a for a in range(len(shape)) if a != position))
    )


def _cumulative_sum(walk: Lowering, node: ir.Node) -> list[Located]:
    """Sums along an axis, each frame added to the sum so far."""
    axis = constant(node.inputs[1])
    if axis is None:
        raise refuse(node, "its axis is not constant")
    moved = _moved_first(whole(walk.program, walk.rows(node.inputs[0])), int(axis.reshape(-1)[0]))  # type: ignore[arg-type]
    frames = Frames(walk.as_onnx(moved), bool(attribute(node, "reverse", 0)))
    exclusive = bool(attribute(node, "exclusive", 0))

    def step(states: list[str], frames: list[str]) -> tuple[list[str], list[str]]:
        f = Formula(node)
        sums = f.lower(walk, [f.op("Add", *(f.tensor(tensor) for tensor in (*states, *frames)))])
        return sums, states if exclusive else sums

    start = walk.program.constant(np.zeros(moved.shape[1:], moved.dtype))
    _, (stack,) = repeat(walk.program, moved.shape[0], [start], [frames], step, [frames.backwards])
    return [_moved(whole(walk.program, stack), int(axis.reshape(-1)[0]))]


HANDLERS: Mapping[str, Callable[[Lowering, ir.Node], list[Located]]] = {
    "CumSum": _cumulative_sum,
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
}

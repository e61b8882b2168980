"""The student of a block: its torch module, quantizers at its weights and at values of few bits. Needs PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from ...ir.blocks import Block
from ...ir.fx import Bridge, to_fx
from ...ir.graph import constant
from ...ir.quantization import Encoding
from .learned_rounding import LearnedRounding, LearnedStep
from .train_block import StudentBlock

__all__ = ["Student", "make_student"]

Floats = npt.NDArray[np.float64]

_LEAN = 0.25  # of a level: GPTQ's roundings make up for each other, and must not all be in doubt at once


@dataclass(frozen=True)
class Student:
    """A block in training; what it trains, by the names of the initialisers and values in the model."""

    block: StudentBlock
    inputs: tuple[str, ...]
    roundings: Mapping[str, LearnedRounding]
    biases: Mapping[str, torch.nn.Parameter]
    steps: Mapping[str, LearnedStep]


def make_student(
    model: ir.Model,
    block: Block,
    rounded: Mapping[str, ir.Value],
    biases: Sequence[str],
    levels: tuple[int, int],
    narrow: Sequence[str],
    activation_levels: int,
) -> Student:
    """The float block of `model` with the weights of `rounded`, by name, where training starts.

    rounded: initialisers on their grids, with their encodings; biases: names of those trained beside them;
    levels: lowest and highest level of weights without a zero point; narrow: values of few bits that the block reads.
    """
    bridge = to_fx(model, block.nodes)
    path_of = {str(value.name): path for path, value in bridge.weights.items()}
    starts = {str(v.name): v for v in bridge.weights.values()}
    roundings = {n: _rounding(starts[n], v, levels) for n, v in rounded.items() if n in path_of and Encoding.of(v)}
    trained = {n: torch.nn.Parameter(torch.tensor(constant(rounded[n]))) for n in biases if n in path_of}
    sites = _sites(bridge, block, narrow)
    steps = {name: LearnedStep(activation_levels) for name in sites}
    _insert(bridge, sites, steps)
    student = StudentBlock(
        bridge.module,
        {path_of[n]: r for n, r in roundings.items()},
        {path_of[n]: b for n, b in trained.items()},
        list(steps.values()),
    )
    return Student(student, bridge.inputs, roundings, trained, steps)


def _rounding(exact: ir.Value, rounded: ir.Value, levels: tuple[int, int]) -> LearnedRounding:
    """Starts at the given levels, leaning towards the exact weight where that is not beyond the next level."""
    encoding, weight, grid = Encoding.of(rounded), constant(exact), constant(rounded)
    assert encoding is not None and encoding.axis is not None and weight is not None and grid is not None
    axis = encoding.axis
    scale = np.asarray(encoding.scale, np.float64)
    shape = tuple(-1 if i == axis else 1 for i in range(weight.ndim))
    found = np.rint(np.asarray(grid, np.float64) / scale.reshape(shape))
    start = found + _LEAN * np.clip(np.asarray(weight, np.float64) / scale.reshape(shape) - found, -1.0, 1.0)
    low, high = _window(found, axis, levels)
    return LearnedRounding(start, scale, low, high, axis)


def _window(found: Floats, axis: int, levels: tuple[int, int]) -> tuple[Floats, Floats]:
    """The levels each slice may use: those without a zero point where they hold what was found, else others with 0."""
    low, high = levels
    rows = np.moveaxis(found, axis, 0).reshape(found.shape[axis], -1)
    least, most = np.minimum(rows.min(1, initial=0.0), 0.0), np.maximum(rows.max(1, initial=0.0), 0.0)
    spare = np.maximum(high - low - (most - least), 0)
    lowest = np.where((least >= low) & (most <= high), low, np.minimum(least - spare // 2, 0.0))
    return lowest, lowest + np.maximum(high - low, most - least)


def _sites(bridge: Bridge, block: Block, names: Sequence[str]) -> dict[str, Any]:
    """The FX node of each value; one that is only another name of its input has none of its own and is left out."""
    nodes = bridge.module.graph.nodes
    found: dict[str, Any] = dict(zip(bridge.inputs, (n for n in nodes if n.op == "placeholder"), strict=True))
    made = {n.meta.get("onnx"): n for n in nodes if n.op not in ("placeholder", "get_attr", "output")}
    found |= {str(v.name): made[n.name] for n in block.nodes for v in n.outputs[:1] if n.name in made}
    return {name: found[name] for name in names if name in found}


def _insert(bridge: Bridge, sites: Mapping[str, Any], steps: Mapping[str, LearnedStep]) -> None:
    """Put the quantizers behind the values they belong to, for every reader in the block."""
    graph = bridge.module.graph
    for number, (name, step) in enumerate(steps.items()):
        path = f"quantizer_{number}"
        bridge.module.add_submodule(path, step)
        with graph.inserting_after(sites[name]):
            inserted = graph.call_module(path, (sites[name],))
        sites[name].replace_all_uses_with(inserted, delete_user_cb=lambda user, new=inserted: user is not new)
    bridge.module.recompile()

"""Kernels without a template: a `LoopNest` is such a workload, a `Trace` the steps of another schedule for it.

A trace is what TVM's Schedule wrote down while MetaSchedule scheduled the kernel (`tuning/traces.py`); replaying it
gives the same PrimFunc every time. Only steps that move loops are taken: none of them changes what an element is
computed from, nor the order of a sum.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .blocks import exchanged, realized, with_root
from .program import Choice, Program

__all__ = ["DEFAULT", "LoopNest", "Trace", "call", "choice", "config", "replayed"]

# Steps of a schedule that keep every element's expression and the order of its sums.
_STEPS = {
    *("GetSBlock", "GetLoops", "GetChildBlocks", "GetConsumers", "GetProducers", "EnterPostproc"),
    *("SampleCategorical", "SampleComputeLocation", "SamplePerfectTile"),
    *("Split", "Fuse", "Reorder", "Vectorize", "Unroll", "Annotate", "Unannotate", "DecomposeReduction"),
    *("ComputeAt", "ReverseComputeAt", "ComputeInline", "ReverseComputeInline", "CacheRead", "CacheWrite"),
}


@dataclass(frozen=True)
class LoopNest:
    """name: what it computes, for people; buffers: the arguments; digest: of the PrimFunc without a schedule."""

    name: str
    buffers: str
    digest: str

    def choose(self) -> Trace:
        """The default schedule, whatever that is."""
        return DEFAULT


@dataclass(frozen=True)
class Trace:
    """trace: the steps of a schedule and the decisions made in it, as JSON text; `default` for the default schedule."""

    trace: str


DEFAULT = Trace("default")


def choice(function: Any, name: str, default: Callable[[Any], Any]) -> Choice:
    """The choice that a kernel without a template has; `default` makes a scheduled copy of a PrimFunc."""
    import tvm_ffi

    buffers = ", ".join(
        f"{buffer.dtype}[{'x'.join(str(int(extent)) for extent in buffer.shape)}]" for buffer in function.params
    )
    digest = f"{int(tvm_ffi.structural_hash(function)) % 2**64:016x}"
    return Choice(LoopNest(name, buffers, digest), partial(_scheduled, function, default), _numbered(function))


def call(
    program: Program,
    function: Any,
    stem: str,
    reads: tuple[str, ...],
    writes: tuple[str, ...],
    default: Callable[[Any], Any],
) -> None:
    """Append a call of a PrimFunc without a schedule: under the trace that the program was given, or by default."""
    found = choice(function, stem, default)
    program.call(found.scheduled(config(program, found)), stem, reads, writes, found)


def config(program: Program, kernel: Choice) -> Trace:
    """The trace that the program was given for a kernel, else the default."""
    given: Trace = program.configs.get(kernel.workload, DEFAULT)
    return given


def _scheduled(function: Any, default: Callable[[Any], Any], config: Trace) -> Any:
    return default(function) if config == DEFAULT else replayed(_numbered(function), config)


def _numbered(function: Any) -> Any:
    """The PrimFunc with blocks named by their order: traces name blocks, and a digest does not depend on names."""
    count = 0

    def renamed(realize: Any) -> Any:
        nonlocal count
        name = f"block{count}"
        count += 1
        return realized(realize, name_hint=name, body=exchanged(realize.block.body, renamed))

    return with_root(function, body=exchanged(function.body.block.body, renamed))


def replayed(function: Any, config: Trace) -> Any:
    """The PrimFunc under a trace; ValueError where the trace is not one of this kernel's."""
    from tvm.s_tir import Schedule
    from tvm.s_tir.schedule import Trace as Steps

    steps = json.loads(config.trace)
    names = {step[0] for step in steps[0]} if isinstance(steps, list) and len(steps) == 2 else {"no trace"}
    if names - _STEPS:
        raise ValueError(f"a trace with the step {min(names - _STEPS)}")
    sch = Schedule(function)
    try:
        Steps.apply_json_to_schedule(steps, sch)
    except Exception as error:  # whatever class of TVM's
        raise ValueError((str(error).strip().splitlines() or ["?"])[-1][:200]) from error
    return sch.mod["main"]

"""The table of the NPU: what passes ask of a machine, and which integer operations its units have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from planish.errors import UsageError
from planish.ir.integer import FloatNode, IntegerOp, Step
from planish.targets.registry import resolve as resolve_target
from planish.targets.target import Target

__all__ = ["WEIGHT_MEMORY", "refuse", "resolve"]

KIND = "toy-npu"
WEIGHT_MEMORY = 16 * 1024  # bytes that the weights of one operation may take


def resolve(cpu: str | None) -> Target:
    """The target `toy-npu`: the CPU beside the NPU is the one this runs on, so its table is the base."""
    if cpu is not None:
        raise UsageError(f"toy-npu has no member {cpu!r}", where="--target", hint="write --target toy-npu")
    return replace(resolve_target("host"), name=KIND, kind=KIND, cpu="toy", channel_alignment=8)


def _convolution(op: IntegerOp) -> str:
    assert op.weight is not None
    channels = op.weight.shape[0]
    if op.weight.ndim != 4:
        return "convolutions have two spatial dimensions"
    if int(op.attributes["group"]) not in (1, channels):
        return "groups are 1 or as many as channels"
    return _products(op)


def _products(op: IntegerOp) -> str:
    assert op.weight is not None and op.weight_zero_point is not None
    if op.weight_zero_point.any():
        return "weights have no zero point"
    if op.weight.nbytes > WEIGHT_MEMORY:
        return f"its weights take {op.weight.nbytes} bytes of {WEIGHT_MEMORY}; narrow the layer or prune it"
    return ""


def _sum(op: IntegerOp) -> str:
    return "" if len(op.inputs) == 2 and op.addend is None else "an operand is constant"


# kind of an integer operation -> why an operation of that kind does not run on the NPU, "" when it does
_UNITS: Mapping[str, Callable[[IntegerOp], str]] = {"conv": _convolution, "dense": _products, "add": _sum}


def refuse(step: Step) -> str:
    """Why the NPU does not take a step of the integer plan; "" when it does."""
    if isinstance(step, FloatNode):
        return step.reason
    if step.kind not in _UNITS:
        return f"no unit for {step.kind}"
    if step.encoding is None:
        return "results are 8-bit integers"
    return _UNITS[step.kind](step)

"""Integer operations to the NPU's program: a list of commands, and the arrays they name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from planish.backends.partition import Part
from planish.ir.integer import IntegerOp

__all__ = ["emit"]

Array = npt.NDArray[np.generic]


def emit(part: Part) -> tuple[str, dict[str, Array]]:
    """The commands of a part as JSON, and its weights, biases and multipliers by `number.name`."""
    commands: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for number, op in enumerate(part.steps):
        assert isinstance(op, IntegerOp) and op.encoding is not None
        commands.append(_command(op))
        held = {"weight": op.weight, "bias": op.bias, "multiplier": op.multiplier}
        arrays |= {f"{number}.{name}": array for name, array in held.items() if array is not None}
    return json.dumps({"inputs": part.inputs, "outputs": part.outputs, "commands": commands}, indent=1), arrays


def _command(op: IntegerOp) -> dict[str, Any]:
    assert op.encoding is not None
    zeros = [int(o.encoding.zero_point) for o in op.inputs if o.encoding is not None]
    return {
        "unit": op.kind,
        "reads": [operand.value for operand in op.inputs],
        "writes": op.outputs[0],
        "zeros": zeros,
        "zero": int(op.encoding.zero_point),
        "low": int(op.low),
        "high": int(op.high),
        "type": op.encoding.dtype.numpy().name,
        **{
            name: _plain(op.attributes[name]) for name in ("strides", "dilations", "pads", "group") if op.kind == "conv"
        },
    }


def _plain(value: int | Sequence[int]) -> int | list[int]:
    return [int(v) for v in value] if isinstance(value, Sequence | np.ndarray) else int(value)

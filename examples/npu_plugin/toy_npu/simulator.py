"""The NPU, simulated: its three units in numpy. It needs no Planish, as a driver on a device would not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Simulator"]

Array = npt.NDArray[Any]


def _conv(command: Mapping[str, Any], operands: list[Array], arrays: Mapping[str, Array]) -> Array:
    """int32 sums over the window; padding holds the zero point and adds nothing."""
    x, weight = operands[0], arrays["weight"].astype(np.int32)
    top, left, bottom, right = command["pads"]
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (sy, sx), (dy, dx), (rows, columns) = command["strides"], command["dilations"], weight.shape[2:]
    height = (x.shape[2] - (rows - 1) * dy - 1) // sy + 1
    width = (x.shape[3] - (columns - 1) * dx - 1) // sx + 1
    total = np.zeros((x.shape[0], weight.shape[0], height, width), np.int32)
    for r in range(rows):
        for c in range(columns):
            window = x[:, :, r * dy : r * dy + (height - 1) * sy + 1 : sy, c * dx : c * dx + (width - 1) * sx + 1 : sx]
            if command["group"] == 1:
                total += np.einsum("nchw,oc->nohw", window, weight[:, :, r, c])
            else:
                total += window * weight[:, :1, r, c].reshape(1, -1, 1, 1)
    column = (1, -1, 1, 1)
    return (total + arrays["bias"].reshape(column)).astype(np.float32) * arrays["multiplier"].reshape(column)


def _dense(command: Mapping[str, Any], operands: list[Array], arrays: Mapping[str, Array]) -> Array:
    total = operands[0] @ arrays["weight"].astype(np.int32) + arrays["bias"]
    return total.astype(np.float32) * arrays["multiplier"]


def _add(command: Mapping[str, Any], operands: list[Array], arrays: Mapping[str, Array]) -> Array:
    a, b = (x.astype(np.float32) * factor for x, factor in zip(operands, arrays["multiplier"], strict=True))
    return a + b


_UNITS = {"conv": _conv, "dense": _dense, "add": _add}


class Simulator:
    """One program of the NPU: `Simulator("npu_0")(values)` adds its results to a dictionary of arrays."""

    def __init__(self, stem: Path) -> None:
        program = json.loads(stem.with_suffix(".json").read_text())
        self.inputs, self.outputs, self.commands = program["inputs"], program["outputs"], program["commands"]
        with np.load(stem.with_suffix(".npz")) as arrays:
            self._arrays = [
                {name.partition(".")[2]: arrays[name] for name in arrays if name.partition(".")[0] == str(number)}
                for number in range(len(self.commands))
            ]

    def __call__(self, values: Mapping[str, Array]) -> dict[str, Array]:
        memory = {name: values[name] for name in self.inputs}
        for command, arrays in zip(self.commands, self._arrays, strict=True):
            read = zip(command["reads"], command["zeros"], strict=True)
            operands = [memory[name].astype(np.int32) - zero for name, zero in read]
            scaled = _UNITS[command["unit"]](command, operands, arrays)
            levels = np.clip(np.rint(scaled) + command["zero"], command["low"], command["high"])
            memory[command["writes"]] = levels.astype(command["type"])
        return {name: memory[name] for name in self.outputs}

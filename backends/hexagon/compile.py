"""`compile_model`: the TVM back end's artifact with the kernels of this machine, and the instructions of one run."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...errors import PlanishError
from ...ir.graph import static_shape
from ...targets.target import Target
from ..compiled import Compiled
from ..tvm import compile as tvm_compile
from .emulate import Runner, unavailable
from .kernel import HEXAGON

__all__ = ["compile_model"]

_PATIENCE = 20.0  # seconds; a second of emulation is about 20 million multiplications


def compile_model(model: ir.Model, target: Target, directory: Path) -> Compiled:
    """Compile a model with static shapes into `directory`; see the function of that name in the TVM back end.

    Where qemu-hexagon is installed, the notes tell the instructions of one run.
    """
    compiled = tvm_compile.compile_model(model, target, directory, machine=HEXAGON)
    return replace(compiled, notes=[*compiled.notes, _count(model, target, directory)])


def _count(model: ir.Model, target: Target, directory: Path) -> str:
    """The instructions of a run on zeros, or why they were not counted. The flow does not depend on the numbers."""
    if reason := unavailable(target):
        return f"compiled, not executed: {reason}"
    zeros = {str(v.name): np.zeros(static_shape(v) or (), v.dtype.numpy()) for v in model.graph.inputs if v.dtype}
    try:
        return f"one run: {Runner(directory, target)(zeros, {}, timeout=_PATIENCE)[1]}"
    except subprocess.TimeoutExpired:
        return f"instructions not counted: emulation took more than {_PATIENCE:.0f} s"
    except PlanishError:
        return "instructions not counted: its float operators need the C library"

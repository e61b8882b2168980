"""Callbacks around every pass: verify, time, dump, fidelity, bisection."""

from __future__ import annotations

from typing import Protocol

import onnx_ir as ir

from .base import Pass
from .context import Context

__all__ = ["Instrument"]


class Instrument(Protocol):
    """Called before and after every pass of a manager, on the model in place."""

    def before(self, pass_: Pass, model: ir.Model, context: Context) -> None: ...

    def after(self, pass_: Pass, model: ir.Model, context: Context) -> None: ...

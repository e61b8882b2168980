"""Planish: compiler passes that make a trained network small and fast without its training data."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    ModelError,
    NothingChangedError,
    OutputError,
    PlanishError,
    UsageError,
    VerificationError,
)

if TYPE_CHECKING:
    from .driver import Result, optimize
    from .integrations import fx_pass
    from .ir.capture import capture
    from .passes.base import Pass
    from .passes.context import Context
    from .passes.manager import PassManager
    from .targets.target import Target

__all__ = [
    "Context",
    "ModelError",
    "NothingChangedError",
    "OutputError",
    "Pass",
    "PassManager",
    "PlanishError",
    "Result",
    "Target",
    "UsageError",
    "VerificationError",
    "capture",
    "fx_pass",
    "optimize",
]

# public name -> module, imported when the name is first used so that `import planish` costs nothing
_LAZY = {
    "Context": ".passes.context",
    "Pass": ".passes.base",
    "PassManager": ".passes.manager",
    "Result": ".driver",
    "Target": ".targets.target",
    "capture": ".ir.capture",
    "fx_pass": ".integrations",
    "optimize": ".driver",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

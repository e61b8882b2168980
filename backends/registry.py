"""Target kinds to their back ends, loaded when used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import onnx_ir as ir

from ..targets.target import Target
from .compiled import Compiled, Placement

__all__ = ["COMPILERS", "DEFAULT", "EXPLAINERS", "Compiler", "Explainer", "compiler", "explainer"]


class Compiler(Protocol):
    """Compiles a model with static shapes into a directory."""

    def __call__(self, model: ir.Model, target: Target, directory: Path) -> Compiled: ...


class Explainer(Protocol):
    """Foretells where each node of a model with static shapes would run."""

    def __call__(self, model: ir.Model, target: Target) -> list[Placement]: ...


DEFAULT = "tvm.compile:compile_model"
# kind of target -> "module:function" in this package; a kind that is not listed is TVM's
COMPILERS: Mapping[str, str] = {
    "cuda": "cuda.compile:compile_model",
    "ethos-u": "ethosu.compile:compile_model",
    "hexagon": "hexagon.compile:compile_model",
}
# kind of target -> where each node would run, told without compiling
EXPLAINERS: Mapping[str, str] = {
    "ethos-u": "ethosu.compile:explain",
}


def compiler(kind: str) -> Compiler:
    """The function that compiles for targets of a kind."""
    return cast(Compiler, _load(COMPILERS.get(kind, DEFAULT)))


def explainer(kind: str) -> Explainer | None:
    """The function that predicts the placement on targets of a kind; None where there is nothing to tell."""
    return cast(Explainer, _load(EXPLAINERS[kind])) if kind in EXPLAINERS else None


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(f".{module}", __package__), name)

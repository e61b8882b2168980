"""Target kinds to their back ends, loaded when used; plug-ins come from the entry-point group `planish.backends`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, cast

import onnx_ir as ir

from ..errors import UsageError
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


@cache
def _plugins() -> dict[str, EntryPoint]:
    """Kind of target -> the module of a plug-in, with `compile_model` and, if it can tell, `explain`."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group="planish.backends"):
        if point.name in found or point.name in COMPILERS:
            raise UsageError(
                f"two back ends are both for targets of the kind {point.name!r}",
                where=point.value,
                hint="uninstall one of the plug-ins, or ask its author to rename the kind",
            )
        found[point.name] = point
    return found


def compiler(kind: str) -> Compiler:
    """The function that compiles for targets of a kind."""
    if kind not in COMPILERS and kind in _plugins():
        return cast(Compiler, _of_plugin(kind, "compile_model"))
    return cast(Compiler, _load(COMPILERS.get(kind, DEFAULT)))


def explainer(kind: str) -> Explainer | None:
    """The function that predicts the placement on targets of a kind; None where there is nothing to tell."""
    if kind in EXPLAINERS:
        return cast(Explainer, _load(EXPLAINERS[kind]))
    if kind in COMPILERS or kind not in _plugins():
        return None
    return cast("Explainer | None", _of_plugin(kind, "explain", required=False))


def _of_plugin(kind: str, name: str, *, required: bool = True) -> Any:
    """A function of a plug-in's module, which is imported only when a target of its kind is used."""
    point = _plugins()[kind]
    try:
        module = point.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"the back end for {kind!r} cannot be loaded: {error}",
            where=point.value,
            hint="install what it imports, or repair or uninstall the plug-in that registers it",
        ) from error
    function = getattr(module, name, None)
    if function is None and required:
        raise UsageError(
            f"the back end for {kind!r} has no function {name}",
            where=point.value,
            hint="see docs/npu-plugins.md for what a back end is made of",
        )
    return function


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(f".{module}", __package__), name)

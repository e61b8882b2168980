"""Names to passes, importing none until it is used; plug-ins come from the entry-point group `planish.passes`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import onnx_ir.passes
import yaml

from ..errors import UsageError
from . import cleanup, prune, quantize, recover, replace, synthesize
from .base import Pass
from .fixpoint import Fixpoint
from .foreign import provide
from .pipeline import Element, coerce_options, element_from_yaml, option_names, parse_text

__all__ = ["build", "load_yaml", "lookup", "names", "parse", "spec"]

# passes of no family
_GENERAL = {"fixpoint": "fixpoint:Fixpoint", "print-blocks": "print_blocks:PrintBlocks"}
# family package -> {pass name: "module:Class"}; the tables live beside the passes they name
_FAMILIES = {
    "cleanup": cleanup,
    "synthesize": synthesize,
    "prune": prune,
    "quantize": quantize,
    "recover": recover,
    "replace": replace,
}


@cache
def names() -> dict[str, str]:
    """Every known pass name with the place it is loaded from; a name claimed twice is an error."""
    table = {name: f"planish.passes.{place}" for name, place in _GENERAL.items()}
    claims: list[tuple[str, str]] = []
    for family, package in _FAMILIES.items():
        claims += [(name, f"planish.passes.{family}.{place}") for name, place in package.PASSES.items()]
        claims += [(name, f"foreign:{family}:{name}") for name in getattr(package, "FOREIGN", {})]
    claims += [(point.name, f"{point.module}:{point.attr}") for point in entry_points(group="planish.passes")]
    for name, place in claims:
        if name in table and table[name] != place:
            raise UsageError(
                f"two passes are both called {name!r}",
                where=f"{table[name]} and {place}",
                hint="uninstall one of the plug-ins, or ask its author to rename the pass",
            )
        table[name] = place
    return table


def lookup(name: str) -> Any:
    """The pass class of a name, or a factory for a pass that onnx_ir or onnxscript provides."""
    table = names()
    if name not in table:
        import difflib

        near = difflib.get_close_matches(name, table, 3)
        raise UsageError(
            f"there is no pass called {name!r}",
            where="pipeline",
            hint=(f"did you mean {' or '.join(near)}? " if near else "") + "`ir-opt --list-passes` shows all of them",
        )
    place = table[name]
    if place.startswith("foreign:"):
        return _FAMILIES[place.split(":")[1]].FOREIGN[name]
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"the pass {name!r} cannot be loaded: {error}",
            where=place,
            hint="install what it imports, or repair or uninstall the plug-in that registers it",
        ) from error


def build(elements: Iterable[Element]) -> list[onnx_ir.passes.PassBase]:
    """Instantiate the passes that parsed pipeline elements name."""
    result: list[onnx_ir.passes.PassBase] = []
    for element in elements:
        found = lookup(element.name)
        if found is Fixpoint:
            result.append(_instantiate(Fixpoint, element, passes=tuple(build(element.inner or ()))))
        elif element.inner is not None:
            raise UsageError(f"{element.name} takes no nested passes", where="pipeline", hint="only fixpoint(...) does")
        elif isinstance(found, type) and issubclass(found, Pass):
            result.append(_instantiate(found, element))
        elif element.options:
            raise UsageError(f"{element.name} takes no options", where="pipeline", hint="remove the braces")
        else:
            result.append(provide(element.name, found))
    return result


def _instantiate(cls: type[Pass], element: Element, **given: Any) -> Pass:
    options = coerce_options(cls, element.options)
    try:
        return cls(**given, **options)
    except (TypeError, ValueError) as error:  # a required option is missing, or __post_init__ refuses a value
        hint = f"the options of {cls.name} are: {', '.join(option_names(cls)) or 'none'}"
        raise UsageError(f"{cls.name}: {error}", where=f"pipeline element {element.name}", hint=hint) from error


def parse(text: str) -> list[onnx_ir.passes.PassBase]:
    """Pipeline text to passes."""
    return build(parse_text(text))


def load_yaml(path: str | Path) -> list[onnx_ir.passes.PassBase]:
    """A YAML list of passes (or a mapping with the list under `passes`) to passes."""
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = f"the pipeline file cannot be read: {error}"
        raise UsageError(what, where=str(path), hint="give a YAML list of passes") from error
    items = loaded.get("passes") if isinstance(loaded, dict) else loaded
    if not isinstance(items, list):
        hint = "write one pass per line as `- name`"
        raise UsageError("the pipeline file holds no list of passes", where=str(path), hint=hint)
    return build(element_from_yaml(item, str(path)) for item in items)


def spec(passes: Sequence[onnx_ir.passes.PassBase]) -> str:
    """Passes as pipeline text, such that `parse(spec(passes)) == passes`."""
    return ",".join(str(p) for p in passes)

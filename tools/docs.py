"""Write docs/passes.md from the passes themselves: `python -m planish.tools.docs` (with `--check`: compare only)."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from pathlib import Path

import click

from ..passes import registry
from ..passes.base import Pass
from ..passes.fixpoint import Fixpoint
from ..passes.pipeline import format_value, option_names

__all__ = ["main", "render"]

_HEAD = """\
# Passes

<!-- Written by `python -m planish.tools.docs` from the docstrings and options of the passes. -->

Write them as pipeline text (`--passes "{example}"`), see [pipelines](pipelines.md).
*Exact* passes leave every output as it was up to rounding; *lossy* ones are measured on every run.
`fixpoint{{steps=4}}(a,b)` repeats the passes in its parentheses until a round changes nothing.
"""
_FAMILIES = {
    "cleanup": "Clean-up",
    "synthesize": "Inputs and statistics without data",
    "quantize": "Quantization",
    "prune": "Pruning",
    "replace": "Block replacement",
    "recover": "Recovery",
    "general": "Of no family",
}


def render() -> str:
    """The reference of all built-in passes as Markdown, family by family, in alphabetical order."""
    parts = [_HEAD.format(example="fold-bn,remove-unused")]
    families = {name: _family(place) for name, place in registry.names().items()}
    for family, title in _FAMILIES.items():
        names = sorted(name for name, own in families.items() if own == family)
        parts += [f"## {title}\n", *(_section(name) for name in names)] if names else []
    return "\n".join(parts)


def _family(place: str) -> str:
    """The family of a built-in pass from where it is loaded, `general` when it has none; empty for plug-ins."""
    kind, _, rest = place.partition(":")
    if kind == "foreign":
        return rest.partition(":")[0]
    parts = kind.split(".")
    if parts[:2] != ["planish", "passes"]:
        return ""
    return parts[2] if len(parts) > 3 else "general"


def _section(name: str) -> str:
    found = registry.lookup(name)
    text = inspect.cleandoc(found.__doc__ or "")
    if not (isinstance(found, type) and issubclass(found, Pass)):
        return f"### `{name}`\n\n*exact, from a library* — {text}\n"
    first, _, rest = text.partition("\n")
    lines = [f"### `{name}`", "", f"*{'exact' if found.exact else 'lossy'}* — {first}", ""]
    lines += [rest.strip("\n"), ""] if rest.strip() else []
    return "\n".join(lines + _options(found))


def _options(cls: type[Pass]) -> list[str]:
    if cls is Fixpoint or not option_names(cls):
        return []
    hints = typing.get_type_hints(cls)
    lines = ["| option | type | default |", "|---|---|---|"]
    for field in dataclasses.fields(cls):
        default = "must be given"
        if field.default is not dataclasses.MISSING:
            default = f"`{format_value(field.default)}`"
        lines.append(f"| `{field.name.replace('_', '-')}` | {_type(hints[field.name])} | {default} |")
    return [*lines, ""]


def _type(hint: typing.Any) -> str:
    """A field's type in words a user of the command line understands."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{format_value(choice)}`" for choice in arguments)
    if typing.get_origin(hint) is tuple:
        return f"list of {_type(arguments[0])}"
    if arguments:
        return " or ".join(_type(a) for a in arguments)
    return {"NoneType": "`none`", "str": "text", "int": "integer", "float": "number", "bool": "`true`, `false`"}[
        getattr(hint, "__name__", str(hint))
    ]


@click.command()
@click.argument("page", type=click.Path(path_type=Path), default=Path("docs/passes.md"))
@click.option("--check", is_flag=True, help="Write nothing; fail when the page is out of date.")
def main(page: Path, check: bool) -> None:
    """Write PAGE (docs/passes.md) from the passes."""
    text = render()
    if check:
        sys.exit(0 if page.exists() and page.read_text() == text else f"{page} is out of date")
    page.write_text(text)


if __name__ == "__main__":
    main()

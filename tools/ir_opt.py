"""`ir-opt`: a model in text or ONNX in, passes over it, text and the account of the passes out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import OutputError, PlanishError

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..passes.record import Record

__all__ = ["main", "optimize_text"]


@click.command(name="ir-opt", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("model", default="-", metavar="[FILE|-]")
@click.option("--passes", default="", metavar="TEXT", help='Pipeline text: "fold-bn,quantize{weights=int8}".')
@click.option("--target", metavar="T[/CPU]", help="Machine the passes may ask about.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
@click.option("--verify", "verify_input", is_flag=True, help="Verify the model before the first pass.")
@click.option("--verify-each", is_flag=True, help="Verify the model before the first pass and after every pass.")
@click.option("--list-passes", is_flag=True, help="Print the name and the first line of every pass.")
@click.option("--list-targets", is_flag=True, help="Print the names --target accepts.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help=".onnx or .onnxtxt to write.")
def main(model: str, output: Path | None, list_passes: bool, list_targets: bool, **options: Any) -> None:
    """Run passes over a model and print the result as text, followed by what every pass did.

    FILE is a model in text form (its weights beside it in FILE.npz) or in ONNX; `-` reads text from standard input.
    """
    try:
        if list_passes or list_targets:
            click.echo("\n".join(_passes() if list_passes else _targets()))
        else:
            _run(model, output, options)
    except PlanishError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


def _run(source: str, output: Path | None, options: Mapping[str, Any]) -> None:
    model = _read(source)
    if output is None:
        click.echo(_report(model, options), nl=False)
        return
    account = _apply(model, options)
    try:
        _write(model, output)
    except OSError as error:
        hint = "give a file in a directory that exists and can be written"
        raise OutputError(f"the result cannot be written: {error.strerror}", where=str(output), hint=hint) from error
    click.echo("".join(f"{line}\n" for line in _account(account)), nl=False)


def _write(model: ir.Model, output: Path) -> None:
    if output.suffix == ".onnx":
        from ..backends.onnx.writer import write

        write(model, output, keep_metadata=True)
    else:
        from ..ir.text import save_text

        save_text(model, output)


def optimize_text(text: str, arguments: list[str], *, file: str = "standard input") -> str:
    """What `ir-opt ARGUMENTS` prints for a model given as text, without a process of its own."""
    from ..ir.text import parse_model

    options = main.make_context("ir-opt", list(arguments)).params
    return _report(parse_model(text, file=file), options)


def _report(model: ir.Model, options: Mapping[str, Any]) -> str:
    from ..ir.text import print_model

    records = _apply(model, options)
    return print_model(model) + "".join(f"{line}\n" for line in _account(records))


def _apply(model: ir.Model, options: Mapping[str, Any]) -> list[Record]:
    from ..ir.verify import check
    from ..passes.context import Context
    from ..passes.instruments import Instrument, Verify
    from ..passes.manager import PassManager
    from ..targets.registry import resolve

    if options["verify_input"] or options["verify_each"]:
        check(model, "the input model")
    instruments: list[Instrument] = [Verify()] if options["verify_each"] else []
    target = resolve(options["target"]) if options["target"] else None
    context = Context(target=target, seed=options["seed"], original=model.clone())
    return PassManager(options["passes"], instruments=instruments).run(model, context).records


def _account(records: list[Record]) -> Iterator[str]:
    """The records as comment lines, which the text form skips."""
    for record in records:
        skipped = len(record.skips)
        yield f"// pass {record.spec}: matched {record.matched}, changed {record.changed}, skipped: {skipped}"
        lines = [("changed", change.site, change.detail) for change in record.changes]
        lines += [("skipped", skip.site, skip.reason) for skip in record.skips]
        lines += [("note", "", note) for note in record.notes]
        for what, site, detail in lines:
            words = f"{what} {site}".rstrip() + (f": {detail}" if detail else "")
            yield "//   " + " ".join(words.split())


def _read(source: str) -> ir.Model:
    """Text as it is, valid or not; an ONNX file as `optimize` reads it."""
    if source == "-":
        from ..ir.text import parse_model

        return parse_model(sys.stdin.read(), file="standard input")
    if Path(source).suffix == ".onnx":
        from ..ir.capture import capture

        return capture(source)
    from ..ir.text import load_text

    return load_text(source)


def _passes() -> Iterator[str]:
    from ..passes.registry import lookup, names

    known = names()
    width = max(map(len, known))
    for name in sorted(known):
        try:
            summary = (lookup(name).__doc__ or "").strip().partition("\n")[0]
        except PlanishError as error:  # a plug-in's trouble is not that of the others
            summary = f"({error.what})"
        yield f"{name:{width}}  {summary}".rstrip()


def _targets() -> list[str]:
    from ..targets.registry import names

    return names()


if __name__ == "__main__":
    main()

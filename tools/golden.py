"""Golden files: cases of a RUN line, a model as text and CHECK lines; run in process, and rewritten by `--accept`."""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import click

from ..errors import PlanishError, UsageError
from .ir_opt import optimize_text

__all__ = ["Case", "accept", "read_cases", "run_case"]

_SEPARATOR = "// -----"
_RUN = re.compile(r"^// RUN: (?P<expect_error>not )?ir-opt\b(?P<arguments>.*)$", re.MULTILINE)
_CHECK = re.compile(r"^// CHECK[-\w{}]*:.*\n?", re.MULTILINE)
# what an accepted expectation leaves open: contents of large tensors, places in the golden file
_OPEN = ((re.compile(r"blake2:[0-9a-f]+"), "blake2:{{[0-9a-f]+}}"), (re.compile(r", line \d+,"), ", line {{[0-9]+}},"))


@dataclass(frozen=True)
class Case:
    """One case of a golden file; `line` is where it starts, `text` all of it, `not ir-opt` expects an error."""

    file: Path
    line: int
    text: str
    arguments: tuple[str, ...]
    expect_error: bool

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}"


def read_cases(file: Path) -> Iterator[Case]:
    """The cases of a file, separated by `// -----`; one without a RUN line of its own is run like the one before."""
    run, line = None, 1
    for text in file.read_text(encoding="utf-8").split(_SEPARATOR + "\n"):
        run = _RUN.search(text) or run
        if run is None:
            hint = "start the file with `// RUN: ir-opt --passes NAME`"
            raise UsageError("a golden file has no RUN line", where=f"{file}, line {line}", hint=hint)
        yield Case(file, line, text, tuple(shlex.split(run["arguments"])), bool(run["expect_error"]))
        line += text.count("\n") + 1


def run_case(case: Case) -> str:
    """Run a case and compare; the reason it fails with the output, or an empty string."""
    output = _output(case)
    complaint = _compare(case, output)
    return f"{complaint}\n--- output of {case} ---\n{output}" if complaint else ""


def _output(case: Case) -> str:
    """What ir-opt prints for the case; line numbers in messages are those of the golden file."""
    text = "\n" * (case.line - 1) + case.text
    try:
        output = optimize_text(text, list(case.arguments), file=case.file.name)
    except PlanishError as error:
        if not case.expect_error:
            raise
        return f"{error}\n"
    if case.expect_error:
        raise UsageError("ir-opt was expected to fail, and did not", where=str(case), hint="remove `not`")
    return output


def _compare(case: Case, output: str) -> str:
    """Match the CHECK lines with filecheck; its complaint, or an empty string."""
    try:
        from filecheck.finput import FInput
        from filecheck.matcher import Matcher
        from filecheck.options import Options
        from filecheck.parser import Parser, pattern_for_opts
    except ImportError as error:
        hint = "install it: pip install 'planish[dev]'"
        raise UsageError("goldens are compared with filecheck, which is missing", where=str(case), hint=hint) from error

    options = Options(match_filename=str(case.file))
    lines = io.StringIO(case.text)
    checks = Parser(options, lines, *pattern_for_opts(options), line_no=case.line - 1)
    matcher = Matcher(options, FInput("output", output), checks)
    matcher.stderr = io.StringIO()
    with redirect_stdout(io.StringIO()):  # the matcher traces its position there
        status = matcher.run()
    return matcher.stderr.getvalue() or f"filecheck exit code {status}" if status else ""


def accept(file: Path) -> bool:
    """Rewrite the CHECK lines of a file from what is printed now; True when the file changed."""
    before = file.read_text(encoding="utf-8")
    after = (_SEPARATOR + "\n").join(_accepted(case) for case in read_cases(file))
    if after != before:
        file.write_text(after, encoding="utf-8")
    return after != before


def _accepted(case: Case) -> str:
    """The case with its CHECK lines replaced: every output line in order, hashes and line numbers left open."""
    body = _CHECK.sub("", case.text).rstrip("\n")
    return body + "\n" + "".join(_check_lines(_output(case)))


def _check_lines(output: str) -> Iterator[str]:
    directive = "CHECK:      "
    for line in output.splitlines():
        if line.strip():
            text = line.strip() if directive == "CHECK:      " else line
            if "{{" in text or "[[" in text:
                yield f"// {directive.split(':')[0]}{{LITERAL}}: {text}\n"
            else:
                for pattern, replacement in _OPEN:
                    text = pattern.sub(replacement, text)
                yield f"// {directive}{text}\n"
            directive = "CHECK-NEXT: "


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--accept", "accepting", is_flag=True, help="Rewrite the CHECK lines from the current output.")
def main(files: tuple[Path, ...], accepting: bool) -> None:
    """Run golden FILES, or rewrite their expectations; review the difference before committing it."""
    failed = False
    for file in files:
        if accepting:
            click.echo(f"{'rewrote' if accept(file) else 'unchanged'} {file}")
            continue
        for case in read_cases(file):
            complaint = run_case(case)
            failed = failed or bool(complaint)
            click.echo(complaint or f"ok {case}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

"""What the command lines print: tables for people, from the report; progress on a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import display_tuning as tuning

if TYPE_CHECKING:
    from ..driver import Result
    from ..passes.manager import Outcome

__all__ = ["Screen"]

_DETAILS = 3  # changes and skips of a pass that are listed without -v


@dataclass(frozen=True)
class Bar:
    """One line that says what is being done."""

    line: Progress
    task: TaskID

    def passes(self, name: str, done: int) -> None:
        """The pass that runs, and how many are done."""
        self.line.update(self.task, description=f"pass {done + 1}: {name}")

    def work(self, text: str, share: float) -> None:
        """What else is being done, and how much of it is done."""
        self.line.update(self.task, description=f"{share:4.0%} {escape(text)}")


class Screen:
    """Standard output, quiet or verbose; progress goes to standard error when that is a terminal."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.verbose = verbose
        self.console = Console(quiet=quiet, soft_wrap=True, highlight=False, emoji=False)
        self.errors = Console(stderr=True, quiet=quiet)

    def out(self, text: str) -> None:
        """Print text as it is."""
        self.console.print(text, markup=False)

    @contextmanager
    def progress(self) -> Iterator[Bar | None]:
        """What shows the running pass and other long work; None when standard error is no terminal."""
        if not self.errors.is_terminal:
            yield None
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self.errors, transient=True) as bar:
            yield Bar(bar, bar.add_task("reading the model"))

    def summary(self, result: Result) -> None:
        """The before/after table, what each pass did, the fidelity of the outputs and what was written."""
        report = result.report
        self.console.print(_sizes(report))
        self.console.print(_passes(report, self.verbose))
        self._fidelity(report)
        for note in report["notes"] + (report["compiled"] or {}).get("notes", []):
            self.console.print(f"note: {escape(note)}")
        if report["not_compiled"]:
            self.console.print(f"not compiled for {report['target']['name']}: {escape(report['not_compiled'])}")
        if report["compiled"] and report["compiled"]["tuning"]:
            tuning.show(self.console, report["compiled"]["tuning"], self.verbose)
        if result.artifact is not None:
            listing = ", ".join(f"{name} ({_bytes(size)})" for name, size in report["files"].items())
            self.console.print(f"wrote {escape(str(result.artifact))}: {listing}, report.json")

    def _fidelity(self, report: dict[str, Any]) -> None:
        fidelity = report["fidelity"]
        if fidelity["unavailable"]:
            self.console.print(f"outputs not compared: {escape(fidelity['unavailable'])}")
            return
        table = Table(title=f"outputs against the original, {fidelity['samples']} {fidelity['inputs']} input(s)")
        for column in ("output", "SQNR dB", "max relative error", "same arg max"):
            table.add_column(column, justify="left" if column == "output" else "right")
        for output in fidelity["outputs"]:
            agreement = output["agreement"]
            table.add_row(
                escape(output["output"]),
                "equal" if output["sqnr_db"] is None else f"{output['sqnr_db']:.1f}",
                f"{output['relative']:.1e}",
                "" if agreement is None else f"{agreement:.1%}",
            )
        self.console.print(table)

    def times(self, result: Result) -> None:
        """Seconds of every pass, slowest first."""
        table = Table(title="time of passes")
        table.add_column("pass")
        table.add_column("seconds", justify="right")
        for record in sorted(_merge(result.report["passes"]), key=lambda r: -r["seconds"]):
            table.add_row(escape(record["spec"]), f"{record['seconds']:.3f}")
        self.console.print(table)

    def explain(self, result: Result) -> None:
        """Node by node: where it runs, in what type, and why not in another."""
        table = Table(title=f"placement on {result.report['target']['name']}")
        for column in ("node", "operator", "type", "runs on", "why"):
            table.add_column(column, overflow="fold")
        for place in result.report["placement"]:
            table.add_row(*(escape(str(place[key])) for key in ("node", "op", "dtype", "where", "reason")))
        self.console.print(table)
        for record in _merge(result.report["passes"]):
            for skip in record["skips"]:
                self.out(f"{record['pass']}: left {skip['site']} {skip['op']}: {skip['reason']}")

    def bisection(self, number: int | None, outcome: Outcome) -> None:
        """The rewrite that a bisection found."""
        if number is None:
            self.out("bisection: no rewrite of this pipeline breaks the model")
            return
        if number == 0:
            self.out("bisection: the model is broken before any rewrite")
            return
        record = next(r for r in reversed(outcome.records) if r.changes)
        change = record.changes[-1]
        self.out(
            f"bisection: rewrite {number} is the first bad one\n  pass: {record.spec}\n"
            f"  site: {change.site} {change.op}\n  what: {change.detail or record.pass_name}\n"
            f"  next: --bisect-limit {number - 1} stops before it; --dump-ir with --bisect-limit {number} shows it"
        )


def _sizes(report: dict[str, Any]) -> Table:
    before, after = report["before"], report["after"]
    name = report["input"].get("name", report["input"]["kind"])
    table = Table(title=f"{escape(name)} → {report['target']['name']}")
    for column in ("", "before", "after", "change"):
        table.add_column(column, justify="right" if column else "left")
    rows: list[tuple[str, str, Callable[[float], str]]] = [
        ("nodes", "nodes", str),
        ("parameters", "parameters", _count),
    ]
    for title, key, show in [*rows, ("weights", "weight_bytes", _bytes), ("MACs", "macs", _count)]:
        old, new = before[key], after[key]
        change = "" if not old or old == new else f"{(new - old) / old:+.1%}"
        table.add_row(title, show(old), show(new), change)
    return table


def _passes(report: dict[str, Any], verbose: bool) -> Table:
    table = Table(title="passes")
    for column in ("pass", "changed", "skipped", "seconds", "what"):
        table.add_column(column, justify="right" if column in ("changed", "skipped", "seconds") else "left")
    quiet = []
    for record in _merge(report["passes"]):
        if not record["changed"] and not verbose:
            quiet.append(record["pass"])
            continue
        details = [c["detail"] for c in record["changes"] if c["detail"]]
        details += [f"left {n}: {reason}" for reason, n in record["skipped"].items()]
        distinct = list(dict.fromkeys(details))
        shown = distinct if verbose else distinct[:_DETAILS]
        more = f"; … {len(distinct) - len(shown)} more" if len(distinct) > len(shown) else ""
        what = "; ".join(shown) + more or record["why_nothing"]
        skipped = sum(record["skipped"].values())
        table.add_row(
            escape(record["spec"]), str(record["changed"]), str(skipped), f"{record['seconds']:.2f}", escape(what)
        )
    if quiet:
        table.caption = f"{len(quiet)} more passes changed nothing (-v says why)"
    return table


def _merge(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each pass: the rounds of a fixpoint added up; skips are those that still stand in the last round."""
    table: dict[str, dict[str, Any]] = {}
    for record in records:
        total = table.get(record["spec"])
        if total is None:
            table[record["spec"]] = dict(record)
            continue
        total["changes"] = total["changes"] + record["changes"]
        total["changed"] += record["changed"]
        total["seconds"] += record["seconds"]
        total["skips"], total["skipped"] = record["skips"], record["skipped"]
    return list(table.values())


def _count(n: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return f"{n:.0f}"


def _bytes(n: float) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return f"{n:.0f} B"

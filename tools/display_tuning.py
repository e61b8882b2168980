"""What the command line prints about a search for faster kernels; every figure under the name of its cost back end."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["show"]

_WORKLOADS = 10  # that are listed without -v
_NUMBERS = ("calls", "default", "chosen", "change")


def show(console: Console, tuning: dict[str, Any], verbose: bool) -> None:
    """The most expensive workloads with what they cost before and after, notes, and the outcome in a sentence."""
    table = Table(title=f"tuning by {escape(tuning['cost'])}")
    for column in ("workload", *_NUMBERS, "config", "source"):
        table.add_column(column, justify="right" if column in _NUMBERS else "left")
    rows = sorted(tuning["workloads"], key=lambda row: -row["calls"] * (row["default_value"] or 0.0))
    for row in rows if verbose else rows[:_WORKLOADS]:
        before, after = row["default_value"], row["value"]
        change = f"{after / before:.2f}×" if before and after else ""
        config = ", ".join(f"{name} {value}" for name, value in row["config"].items())
        costs = (_cost(before, row["unit"]), _cost(after, row["unit"]))
        table.add_row(escape(row["workload"]), str(row["calls"]), *costs, change, escape(config), row["source"])
    if len(rows) > _WORKLOADS and not verbose:
        table.caption = f"{len(rows) - _WORKLOADS} more (-v lists them)"
    console.print(table)
    for note in tuning["notes"]:
        console.print(f"note: {escape(note)}")
    console.print(escape(_outcome(tuning)))


def _cost(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value * 1e6:.1f} µs" if unit == "s" else f"{value:.0f} {unit}"


def _outcome(tuning: dict[str, Any]) -> str:
    """The result of a search in a sentence."""
    what = f"tuning: {tuning['trials']} configs in {tuning['seconds']:.0f} s"
    if tuning["stopped"]:
        what += f" ({tuning['stopped']})"
    if "tuned_s" in tuning:
        before, after = tuning["untuned_s"] * 1e3, tuning["tuned_s"] * 1e3
        what += f"; the whole model {before:.3f} ms untuned, {after:.3f} ms tuned on this machine"
    return f"{what}; {tuning['kept']} kernels are used"

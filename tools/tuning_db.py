"""`tuning-db`: look into databases of tuning records, and merge them."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import click

from ..errors import PlanishError

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Databases that `optimize --tune` writes: what they hold, and merging them."""


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("others", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
def merge(directory: Path, others: tuple[Path, ...]) -> None:
    """Add to DIRECTORY what the databases OTHERS have and it has not; they are only read."""
    from ..backends.tvm.tuning.database import Database

    try:
        into = Database.open(directory, write=True)
        sources = [Database.open(other) for other in others]
        added = into.merge(sources)
    except PlanishError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    for database in (into, *sources):
        _warn(database.directory, len(database.damaged))
    click.echo(f"{added} records added to {directory}, which has {len(into.records)} now")


@main.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
def show(directory: Path | None) -> None:
    """How many records a database has of each target and cost back end, and its winners  [default: the user's]."""
    from ..backends.tvm.tuning.database import Database, default_directory
    from ..backends.tvm.tuning.keys import describe

    try:
        database = Database.open(directory or default_directory())
    except PlanishError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    _warn(database.directory, len(database.damaged))
    counts = Counter((r.key.target, r.key.tvm, r.cost) for r in database.records)
    for (target, tvm, cost), count in sorted(counts.items()):
        click.echo(f"{count} records  {target}  TVM {tvm}  by {cost}")
    winners = {(repr(r.key), r.cost): r for r in database.records if r.chosen}
    for record in winners.values():
        config = ", ".join(f"{name} {value}" for name, value in record.config.items())
        known = record.value is not None and record.default_value
        ratio = f", {(record.value or 0) / (record.default_value or 1):.2f} of the default" if known else ""
        click.echo(f"  {describe(record.key.workload)}: {config}{ratio}")


def _warn(directory: Path, damaged: int) -> None:
    if damaged:
        click.echo(f"{directory}: {damaged} lines cannot be read; they are left alone", err=True)


if __name__ == "__main__":
    main()

"""The tuning database: one JSON object a line, only ever appended to, so that killing the writer loses its last batch.

A record says what one config of one workload cost on one target, by which back end. Copying the lines of one database
behind those of another merges them.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ....errors import OutputError
from .keys import Key, nearest

__all__ = ["FILE", "SCHEMA", "Database", "Record", "default_directory"]

FILE = "records.jsonl"
SCHEMA = 1  # raised when a field changes its meaning; other numbers are skipped


@dataclass(frozen=True)
class Record:
    """One measured config.

    key: workload, target and TVM version; config: its fields; value: cost of a call in `unit` by the back end `cost`,
    None for a config that does not compile, run or give the right bits, `why`.
    chosen: it won a complete search, where the default config cost `default_value` in the same run.
    """

    key: Key
    config: dict[str, Any]
    cost: str
    unit: str
    value: float | None
    why: str = ""
    chosen: bool = False
    default_value: float | None = None

    def line(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True, ensure_ascii=False)


def default_directory() -> Path:
    """The database of this user: `$XDG_CACHE_HOME/planish/tuning`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "planish" / "tuning"


@dataclass
class Database:
    """The records of a directory, and a way to append to them; a directory that does not exist is an empty database.

    damaged: numbers of lines that could not be read; they are left alone.
    """

    directory: Path
    records: list[Record] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.directory / FILE

    @classmethod
    def open(cls, directory: Path, *, write: bool = False) -> Database:
        """Read a database; OutputError when it cannot be read, or not be written although `write` asks for that."""
        database = cls(directory)
        path = database.path
        try:
            if write:
                directory.mkdir(parents=True, exist_ok=True)
                with path.open("ab"):
                    pass
            contents = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise _unusable(path, error, "written" if write else "read") from error
        for number, line in enumerate(contents.split(b"\n"), start=1):
            if line.strip():
                record = _read(line)
                if record is None:
                    database.damaged.append(number)
                else:
                    database.records.append(record)
        return database

    def append(self, records: Sequence[Record]) -> None:
        """Add a batch and have it on the disk when this returns; a lock keeps other writers apart."""
        if not records:
            return
        path = self.path
        try:
            with path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                text = "".join(record.line() + "\n" for record in records)
                file.write((b"" if _ends_a_line(path) else b"\n") + text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unusable(path, error, "written") from error
        self.records += records

    def measured(self, key: Key, cost: str) -> list[Record]:
        """Records of a key by one back end, the latest for each config."""
        found = {_config(r): r for r in self.records if r.key == key and r.cost == cost and not r.chosen}
        return list(found.values())

    def chosen(self, key: Key, cost: str | None = None) -> Record | None:
        """The latest winner of a complete search, by any back end when none is named."""
        found = [r for r in self.records if r.chosen and r.key == key and cost in (None, r.cost)]
        return found[-1] if found else None

    def nearest(self, key: Key) -> Key | None:
        """The key with a winner that is most like one that has none."""
        return nearest(key, {r.key for r in self.records if r.chosen})

    def merge(self, others: Iterable[Database]) -> int:
        """Append what others have and this one has not; returns how many records came in."""
        held = {record.line() for record in self.records}
        fresh: dict[str, Record] = {}
        for record in _all(others):
            if record.line() not in held:
                fresh.setdefault(record.line(), record)
        self.append(list(fresh.values()))
        return len(fresh)


def _all(databases: Iterable[Database]) -> Iterator[Record]:
    for database in databases:
        yield from database.records


def _config(record: Record) -> str:
    return json.dumps(record.config, sort_keys=True)


def _ends_a_line(path: Path) -> bool:
    """A writer that was killed may have left half a line; the next batch starts on one of its own."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _read(line: bytes) -> Record | None:
    """A record, or None where the line is not one."""
    try:
        row = json.loads(line)
        if row.pop("schema") != SCHEMA:
            return None
        record = Record(**(row | {"key": Key(**row["key"])}))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    sound = isinstance(record.config, dict) and isinstance(record.key.workload, dict)
    return record if sound and (record.value is None or isinstance(record.value, (int, float))) else None


def _unusable(path: Path, error: OSError, how: str) -> OutputError:
    return OutputError(
        f"the tuning database cannot be {how}: {error.strerror or error}",
        where=str(path),
        hint="choose a directory with --tuning-db, or make this one yours",
    )

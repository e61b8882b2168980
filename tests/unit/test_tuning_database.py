"""The tuning database survives kill -9, merges, resumes, names near misses, and says what is wrong with it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from planish.backends.tvm.tuning.database import Database, Record
from planish.backends.tvm.tuning.keys import Key, describe, nearest
from planish.errors import OutputError


def _key(channels: int = 16, target: str = "arm64 n1", tvm: str = "0.27") -> Key:
    return Key({"kind": "Workload", "channels": channels, "size": [8, 8]}, target, tvm)


def _record(value: float, key: Key | None = None, **changes: object) -> Record:
    return replace(Record(key or _key(), {"positions": 4}, "local time", "s", value), **changes)  # type: ignore[arg-type]


_WRITER = """
import sys
from pathlib import Path
from planish.backends.tvm.tuning.database import Database, Record
from planish.backends.tvm.tuning.keys import Key

database = Database.open(Path(sys.argv[1]), write=True)
batch = 0
while True:
    key = Key({"kind": "Workload", "batch": batch}, "t", "v")
    database.append([Record(key, {"n": i, "pad": "x" * 2000}, "c", "s", float(i)) for i in range(20)])
    print(batch, flush=True)
    batch += 1
"""


def test_a_killed_writer_loses_at_most_the_batch_in_flight(tmp_path: Path) -> None:
    for attempt in range(3):
        directory = tmp_path / str(attempt)
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(directory)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            done = [int(writer.stdout.readline()) for _ in range(5 + 3 * attempt)][-1]
            os.kill(writer.pid, signal.SIGKILL)
            done = max([done, *(int(line) for line in writer.stdout.read().split())])
        database = Database.open(directory, write=True)
        whole = [r.key.workload["batch"] for r in database.records]
        assert all(whole.count(batch) == 20 for batch in range(done + 1)), "what was acknowledged is there"
        assert len(database.damaged) <= 1
        assert max(whole) <= done + 1
        database.append([_record(1.0)])
        again = Database.open(directory)
        assert again.records[-1] == _record(1.0)
        assert len(again.records) == len(database.records)


def test_half_a_line_costs_only_itself(tmp_path: Path) -> None:
    database = Database.open(tmp_path, write=True)
    database.append([_record(1.0), _record(2.0)])
    contents = database.path.read_bytes()
    database.path.write_bytes(contents[:-20])
    torn = Database.open(tmp_path, write=True)
    assert [r.value for r in torn.records] == [1.0] and torn.damaged == [2]
    torn.append([_record(3.0)])
    after = Database.open(tmp_path)
    assert [r.value for r in after.records] == [1.0, 3.0]
    assert after.path.read_bytes().startswith(contents[:-20]), "nothing that was there is changed"


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe\x00", b"[1, 2]", b'{"schema": 99}', b'{"schema": 1, "key": 5}', b'{"schema": 1}', b"null", b'"text"'],
)
def test_lines_that_are_no_records_are_counted_and_left_alone(tmp_path: Path, line: bytes) -> None:
    database = Database.open(tmp_path, write=True)
    database.append([_record(1.0)])
    database.path.write_bytes(line + b"\n" + database.path.read_bytes())
    found = Database.open(tmp_path)
    assert found.damaged == [1]
    assert [r.value for r in found.records] == [1.0]


def test_two_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    first, second = Database.open(tmp_path, write=True), Database.open(tmp_path, write=True)
    for value in range(5):
        first.append([_record(value)])
        second.append([_record(10 + value)])
    assert sorted(r.value for r in Database.open(tmp_path).records) == [*range(5), *range(10, 15)]


def test_merging_adds_what_is_new_and_nothing_twice(tmp_path: Path) -> None:
    left, right = (Database.open(tmp_path / side, write=True) for side in ("left", "right"))
    left.append([_record(1.0), _record(2.0)])
    right.append([_record(2.0), _record(3.0), _record(3.0)])
    assert left.merge([right]) == 1
    assert [r.value for r in Database.open(tmp_path / "left").records] == [1.0, 2.0, 3.0]
    assert left.merge([right]) == 0
    assert len(Database.open(tmp_path / "right").records) == 3, "the source is only read"


def test_the_latest_record_of_a_config_counts_and_back_ends_are_kept_apart(tmp_path: Path) -> None:
    database = Database.open(tmp_path, write=True)
    database.append([_record(1.0), _record(2.0), _record(9.0, cost="RPC time, pi"), _record(3.0, chosen=True)])
    assert [r.value for r in database.measured(_key(), "local time")] == [2.0]
    assert database.chosen(_key(), "RPC time, pi") is None
    winner = database.chosen(_key())
    assert winner is not None and winner.value == 3.0


def test_a_miss_names_the_nearest_key(tmp_path: Path) -> None:
    database = Database.open(tmp_path, write=True)
    near, far, elsewhere = _key(24), _key(512), _key(16, target="arm64 a53")
    database.append([_record(1.0, key, chosen=True) for key in (far, near, elsewhere)])
    assert database.chosen(_key(16)) is None
    assert database.nearest(_key(16)) == near
    assert nearest(_key(16), []) is None
    assert "channels 24" in describe(near.workload)


def test_a_database_in_the_way_of_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as caught:
        Database.open(tmp_path / "file" / "db", write=True)
    assert "cannot be written" in caught.value.what and "--tuning-db" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_database_is_readable_but_not_writable(tmp_path: Path) -> None:
    Database.open(tmp_path, write=True).append([_record(1.0)])
    (tmp_path / "records.jsonl").chmod(0o444)
    assert len(Database.open(tmp_path).records) == 1
    with pytest.raises(OutputError, match="cannot be written"):
        Database.open(tmp_path, write=True)


def test_a_full_disk_is_an_output_error_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database.open(tmp_path, write=True)
    database.append([_record(1.0)])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        database.append([_record(2.0)])
    assert Database.open(tmp_path).records[0].value == 1.0


def test_a_record_is_one_line_of_plain_json(tmp_path: Path) -> None:
    database = Database.open(tmp_path, write=True)
    database.append([_record(1.5e-6)])
    (line,) = database.path.read_text().splitlines()
    row = json.loads(line)
    assert row["key"]["workload"]["channels"] == 16 and row["config"] == {"positions": 4} and row["value"] == 1.5e-6

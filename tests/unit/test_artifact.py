"""The output directory appears whole or not at all, and never replaces somebody else's files."""

import errno
from pathlib import Path

import pytest
from planish.backends.artifact import check_writable, staged
from planish.errors import OutputError


def _made_by_us(directory: Path) -> Path:
    directory.mkdir()
    (directory / "report.json").write_text("{}")
    (directory / "old").write_text("old")
    return directory


def test_a_finished_stage_takes_the_place_of_an_earlier_result(tmp_path: Path) -> None:
    out = _made_by_us(tmp_path / "out")
    check_writable(out)
    with staged(out) as stage:
        (stage / "new").write_text("new")
    assert sorted(p.name for p in out.iterdir()) == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"], "no staging directory is left"


@pytest.mark.parametrize("failure", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_a_failure_leaves_the_earlier_result_untouched(tmp_path: Path, failure: BaseException) -> None:
    out = _made_by_us(tmp_path / "out")
    with pytest.raises(type(failure)), staged(out) as stage:
        (stage / "half").write_text("half")
        raise failure
    assert sorted(p.name for p in out.iterdir()) == ["old", "report.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_no_directory_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), staged(tmp_path / "out"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_output_error_with_its_three_parts(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, staged(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device", "model.onnx")
    assert caught.value.exit_code == 2
    assert caught.value.what == "the disk is full"
    assert caught.value.where and caught.value.hint
    assert not list(tmp_path.iterdir())


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    theirs = tmp_path / "thesis"
    theirs.mkdir()
    (theirs / "chapter1.tex").write_text("years of work")
    with pytest.raises(OutputError, match="files of others"):
        check_writable(theirs)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        check_writable(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be written"):
        check_writable(tmp_path / "file" / "below")

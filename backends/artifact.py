"""An output directory that appears whole or not at all; what stood there before stays until then."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError

__all__ = ["MARKER", "check_writable", "staged"]

MARKER = "report.json"  # a directory that holds it was made by this tool and may be replaced


def check_writable(directory: Path) -> None:
    """Raise OutputError, before any work is done, when `directory` could not be written or must not be replaced."""
    hint = "choose another directory with -o"
    if directory.exists():
        if not directory.is_dir():
            raise OutputError("the output path is a file", where=str(directory), hint=hint)
        if any(directory.iterdir()) and not (directory / MARKER).is_file():
            raise OutputError("the output directory holds files of others", where=str(directory), hint=hint)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent):
            pass
    except OSError as error:
        raise _cannot_write(error, directory) from error


@contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """A directory beside `directory` to write into; it takes its place when the block ends without an error."""
    stage = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        stage.chmod(0o755)
        yield stage
        _swap(stage, directory)
    except OSError as error:
        raise _cannot_write(error, directory) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _swap(stage: Path, directory: Path) -> None:
    if not directory.exists():
        stage.rename(directory)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent)) / "old"
    directory.rename(old)
    try:
        stage.rename(directory)
    except OSError:
        old.rename(directory)
        raise
    finally:
        if directory.exists():
            with suppress(OSError):
                shutil.rmtree(old.parent)


def _cannot_write(error: OSError, directory: Path) -> OutputError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return OutputError(
        "the disk is full" if full else f"the output cannot be written: {error.strerror or error}",
        where=str(error.filename or directory),
        hint="free some space and run again; nothing was changed" if full else "choose a writable directory with -o",
    )

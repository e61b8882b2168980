"""The arrays behind the hashes of a text, in an `.npz` that is mapped and not read."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ...errors import ModelError

__all__ = ["Writer", "common", "own", "read"]

Array = npt.NDArray[np.generic]

_PREFIX = "blake2:"
_LOCAL_HEADER = 30  # bytes of a zip entry before its name; the lengths of name and extra field are the last four


def own(path: Path) -> Path:
    """The sidecar of one text."""
    return path.with_name(path.name + ".npz")


def common(path: Path) -> Path:
    """The sidecar that all texts of a directory may share."""
    return path.with_name("weights.npz")


class Writer:
    """Adds arrays to an `.npz` under their hashes, each once; equal arrays give equal bytes. None: no file is made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._archive: zipfile.ZipFile | None = None
        self._written: set[str] = set()

    def __enter__(self) -> Writer:
        if self._path.is_file():
            with _opened(self._path) as archive:
                self._written = set(archive.namelist())
        return self

    def __call__(self, name: str, array: Array) -> None:
        entry = name.removeprefix(_PREFIX) + ".npy"
        if entry in self._written:
            return
        self._written.add(entry)
        if self._archive is None:
            self._archive = zipfile.ZipFile(self._path, "a")
        with self._archive.open(zipfile.ZipInfo(entry), "w", force_zip64=True) as file:  # a ZipInfo has a fixed date
            np.lib.format.write_array(file, _storable(array), version=(1, 0), allow_pickle=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._archive is not None:
            self._archive.close()


def read(path: Path) -> dict[str, Array]:
    """Every array of the file by `blake2:…`, mapped: its data is read when it is used."""
    with _opened(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.compress_type == zipfile.ZIP_STORED]
    with path.open("rb") as file:
        arrays = {}
        for entry in entries:
            file.seek(entry.header_offset + _LOCAL_HEADER - 4)
            file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
            np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            order = "F" if fortran else "C"
            mapped = np.memmap(path, dtype, "r", file.tell(), shape, order)  # type: ignore[call-overload]
            arrays[_PREFIX + entry.filename.removesuffix(".npy")] = np.asarray(mapped)
    return arrays


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        hint = "it was cut off; write the text again, or remove it and replace the hashes by seeded(0)"
        raise ModelError(f"the weights beside the text cannot be read: {error}", where=str(path), hint=hint) from error


def _storable(array: Array) -> Array:
    """Types that numpy does not know by itself as the unsigned integers of their width."""
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")

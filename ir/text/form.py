"""The text form of a model: print it, parse it, keep it in a file with its weights beside it.

The official ONNX text syntax, deterministic: one node a line, attributes sorted, values typed in the angle brackets,
small tensors literal, larger ones as `blake2:…` of their type, shape and contents, whose arrays go to a sidecar.
Added to the syntax: quoted names, `splat(v)`, `seeded(n)`, `seeded(n, low, high)`, and our metadata as `!key = JSON`.
Documentation strings and metadata of other tools on nodes and values are not part of it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ModelError
from .parser import Parser
from .printer import Printer

__all__ = ["load_text", "parse_model", "print_model", "save_text"]

Array = npt.NDArray[np.generic]


def print_model(model: ir.Model, *, weights: dict[str, Array] | None = None) -> str:
    """The model as text; the arrays behind `blake2:…` are put into `weights` where it is given."""
    return Printer(None if weights is None else weights.__setitem__).model(model)


def parse_model(text: str, weights: Mapping[str, Array] | None = None, *, file: str = "model text") -> ir.Model:
    """The model of a text; ModelError names line and column (of `file`) where it does not parse."""
    return Parser(text, weights or {}, file).model()


def save_text(model: ir.Model, path: str | Path) -> None:
    """Write the text to `path` and the hashed tensors to `path` + `.npz`, one tensor in memory at a time."""
    path = Path(path)
    sidecar = _sidecar(path)
    written: set[str] = set()
    with zipfile.ZipFile(sidecar, "w", allowZip64=True) as archive:

        def keep(name: str, array: Array) -> None:
            if name in written:
                return
            written.add(name)
            entry = zipfile.ZipInfo(
                name.partition(":")[2] + ".npy"
            )  # the fixed date of ZipInfo: equal bytes every time
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, _storable(array), allow_pickle=False)

        text = Printer(keep).model(model)
    if not written:
        sidecar.unlink()
    path.write_text(text, encoding="utf-8")


def load_text(path: str | Path) -> ir.Model:
    """Read a text file; hashed tensors stay in the `.npz` beside it until they are used."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"the file cannot be read: {error.strerror if isinstance(error, OSError) else error}"
        raise ModelError(what, where=str(path), hint="give a text file in UTF-8, as `ir-opt` prints it") from error
    sidecar = _sidecar(path)
    weights = _Sidecar(sidecar) if sidecar.is_file() else {}
    return parse_model(text, weights, file=str(path))


class _Sidecar(Mapping[str, Array]):
    """The arrays of an `.npz` by `blake2:…`, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as archive:
            self._names = list(archive)
        self._path = path

    def __getitem__(self, name: str) -> Array:
        with np.load(self._path) as archive:
            array: Array = archive[name.partition(":")[2]]
        return array

    def __iter__(self) -> Iterator[str]:
        return (f"blake2:{name}" for name in self._names)

    def __len__(self) -> int:
        return len(self._names)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".npz")


def _storable(array: Array) -> Array:
    """Types that numpy does not know by itself as the unsigned integers of their width."""
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")

"""The text form of a model: print it, parse it, keep it in a file with its weights beside it.

The official ONNX text syntax, deterministic: one node a line, attributes sorted, values typed in the angle brackets,
small tensors literal, larger ones as `blake2:…` of their type, shape and contents, whose arrays go to a sidecar.
Added to the syntax: quoted names, `splat(v)`, `seeded(n)`, `seeded(n, low, high)`, and our metadata as `!key = JSON`.
Documentation strings and metadata of other tools on nodes and values are not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ModelError
from . import sidecar
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


def save_text(model: ir.Model, path: str | Path, *, shared: bool = False) -> None:
    """Write the text to `path` and the hashed tensors beside it, one of them in memory at a time.

    They go to `path` + `.npz`, or, when `shared`, to the `weights.npz` of the directory, where each stands once
    however many texts refer to it.
    """
    path = Path(path)
    if not shared:
        sidecar.own(path).unlink(missing_ok=True)
    with sidecar.Writer(sidecar.common(path) if shared else sidecar.own(path)) as keep:
        text = Printer(keep).model(model)
    path.write_text(text, encoding="utf-8")


def load_text(path: str | Path) -> ir.Model:
    """Read a text file; hashed tensors are mapped from the `.npz` beside it, or from `weights.npz`."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"the file cannot be read: {error.strerror if isinstance(error, OSError) else error}"
        raise ModelError(what, where=str(path), hint="give a text file in UTF-8, as `ir-opt` prints it") from error
    weights: dict[str, Array] = {}
    for place in (sidecar.common(path), sidecar.own(path)):
        if place.is_file():
            weights |= sidecar.read(place)
    return parse_model(text, weights, file=str(path))

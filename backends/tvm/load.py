"""Run a compiled `model.so` with ctypes and numpy only: copy this file to a board and use it there."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CompiledModel"]

Array = npt.NDArray[np.generic]


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("bytes", ctypes.c_size_t),
    )


def _load(path: Path) -> ctypes.CDLL:
    """The library under a name of its own: the loader would give back an older one that was loaded from this path."""
    with tempfile.TemporaryDirectory() as directory:
        return ctypes.CDLL(str(shutil.copyfile(path, Path(directory) / path.name)))


def _aligned(size: int) -> npt.NDArray[np.uint8]:
    """`size` bytes that start at a multiple of 64."""
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


class CompiledModel:
    """The functions of one model in a shared library: `CompiledModel("model.so")(x=array)["y"]`.

    One call at a time; for calls side by side, one object each.
    """

    def __init__(self, path: str | Path, name: str = "model") -> None:
        library = _load(Path(path))
        self._run = _runner(library, name)
        arena_bytes = getattr(library, f"{name}_arena_bytes")
        arena_bytes.restype = ctypes.c_size_t
        self._arena = _aligned(arena_bytes())
        self.inputs = self._table(library, f"{name}_inputs")
        self.outputs = self._table(library, f"{name}_outputs")

    @staticmethod
    def _table(library: ctypes.CDLL, symbol: str) -> dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]]:
        function = getattr(library, symbol)
        function.argtypes, function.restype = [ctypes.POINTER(ctypes.c_int)], ctypes.POINTER(_Tensor)
        count = ctypes.c_int()
        rows = function(ctypes.byref(count))
        return {
            row.name.decode(): (tuple(row.shape[: row.rank]), np.dtype(row.dtype.decode()))
            for row in rows[: count.value]
        }

    def bind(self, **feeds: Array) -> Callable[[], dict[str, Array]]:
        """Copy the inputs in once; each call of the result runs the model on them and returns the same buffers."""
        arrays, results = [], []
        for name, (shape, dtype) in self.inputs.items():
            if name not in feeds or feeds[name].shape != shape or feeds[name].dtype != dtype:
                raise ValueError(f"input {name!r} must be an array of shape {shape} and type {dtype}")
            buffer = _aligned(feeds[name].nbytes)
            buffer[:] = np.frombuffer(np.ascontiguousarray(feeds[name]).tobytes(), np.uint8)
            arrays.append(buffer)
        for shape, dtype in self.outputs.values():
            results.append(_aligned(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize))
        named = zip(self.outputs.items(), results, strict=True)
        outputs: dict[str, Array] = {name: data.view(dtype).reshape(shape) for (name, (shape, dtype)), data in named}
        inputs, written, arena = _pointers(arrays), _pointers(results), ctypes.c_void_p(self._arena.ctypes.data)

        def call(_held: object = (self, arrays, results)) -> dict[str, Array]:
            if code := self._run(inputs, written, arena):
                why = {2: "the system does not grant AMX's tile registers, which it was compiled for"}
                raise RuntimeError(f"the model returned error {code}: {why.get(code, 'a pointer is not aligned')}")
            return outputs

        return call

    def __call__(self, **feeds: Array) -> dict[str, Array]:
        """Run once; every input by name, in the shape and type of `inputs`."""
        return self.bind(**feeds)()


def _runner(library: ctypes.CDLL, name: str) -> Callable[[Any, Any, ctypes.c_void_p], int]:
    """The function that runs the model: on a team of threads, which ends with it, where the library has one."""
    pointers = [ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p]
    if not hasattr(library, f"{name}_team_run"):
        run: Any = getattr(library, f"{name}_run")
        run.argtypes = pointers
        return run  # type: ignore[no-any-return]
    size = getattr(library, f"{name}_team_bytes")
    size.restype = ctypes.c_size_t
    memory = _aligned(size())
    team = ctypes.c_void_p(memory.ctypes.data)
    if code := getattr(library, f"{name}_team_start")(team):
        raise OSError(code, "the model's threads cannot be started")
    run = getattr(library, f"{name}_team_run")
    run.argtypes = [ctypes.c_void_p, *pointers]

    def on_team(inputs: Any, outputs: Any, arena: ctypes.c_void_p, _held: object = memory) -> int:
        return int(run(team, inputs, outputs, arena))

    weakref.finalize(on_team, getattr(library, f"{name}_team_stop"), team)
    return on_team


def _pointers(arrays: list[npt.NDArray[np.uint8]]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))

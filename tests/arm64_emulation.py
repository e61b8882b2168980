"""Compiled models under QEMU, for the tests that compare arm64 code with the reference."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from planish.backends.tvm import link
from planish.backends.tvm.compile import compile_model
from planish.targets.registry import resolve

__all__ = ["emulated"]

Array = npt.NDArray[np.float32]

_SYSROOT = Path("/usr/aarch64-linux-gnu")
_MACHINES = {"neoverse-v1": "max"}  # CPU -> what QEMU calls a machine with its instructions, where the name differs


def emulated(
    model: ir.Model,
    cpu: str,
    feeds: Mapping[str, Array],
    directory: Path,
    *,
    configs: Mapping[Any, Any] | None = None,
    static: bool = False,
) -> dict[str, Array]:
    """The results of a model compiled for an arm64 CPU; static: of a program that needs no library of the system."""
    pytest.importorskip("ziglang", reason="the arm64 extra links the program")
    if not shutil.which("qemu-aarch64") or not (static or _SYSROOT.is_dir()):
        pytest.skip("qemu-aarch64 or libc6-arm64-cross is not installed")
    target = resolve(f"arm64/{cpu}")
    compile_model(model, target, directory, configs=configs)
    if static:
        link.link(target, directory, ["main.c", "model.c", "weights.S", "model.o"], "main", ["-static"], static=True)
    else:
        link.link(target, directory, ["main.c", "model.so"], "main", ["-Wl,-rpath,$ORIGIN"])
    for name, array in feeds.items():
        array.tofile(directory / f"{name}.in")
    results = {str(v.name): tuple(v.shape or ()) for v in model.graph.outputs}
    files = [*(f"{name}.in" for name in feeds), *(f"{name}.out" for name in results)]
    library = [] if static else ["-L", str(_SYSROOT)]
    command = ["qemu-aarch64", "-cpu", _MACHINES.get(cpu, cpu), *library, "./main", *files]
    subprocess.run(command, cwd=directory, check=True, timeout=120)
    return {n: np.fromfile(directory / f"{n}.out", np.float32).reshape(shape) for n, shape in results.items()}  # type: ignore[arg-type]

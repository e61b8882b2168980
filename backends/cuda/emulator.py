"""Run a model that was compiled for CUDA on the CPU: its own C around its own kernels, built as host code.

    python -m planish.backends.cuda.emulator ARTIFACT inputs.npz outputs.npz

An emulation: it shows which values the generated source computes, not how fast, nor what a CUDA compiler makes of it.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import PlanishError

__all__ = ["build", "emulate", "main"]

Array = npt.NDArray[np.generic]

_RUNTIME = Path(__file__).with_name("emulator.cc")
_KERNEL = r'extern "C" __global__'


def build(artifact: Path, library: Path) -> None:
    """Compile the kernels of `artifact/model.cu` into a library that stands in for the CUDA driver."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise PlanishError("the emulation needs a C++ compiler", where="CUDA emulation", hint="install g++")
    source = (artifact / "model.cu").read_text(encoding="utf-8")
    kernels = source[source.index(_KERNEL) :]
    names = re.findall(r"__launch_bounds__\(\d+\) (\w+)\(", kernels)
    with tempfile.TemporaryDirectory(prefix="planish-emulation-") as directory:
        folder = Path(directory)
        (folder / "kernels.h").write_text(kernels.replace(_KERNEL, "__global__"), encoding="utf-8")
        (folder / "table.h").write_text("".join(f"KERNEL({name})\n" for name in names), encoding="utf-8")
        options = ["-O2", "-std=c++17", "-shared", "-fPIC", "-w", "-fno-strict-aliasing", f"-I{folder}"]
        options += ['-DKERNELS="kernels.h"', '-DTABLE="table.h"', "-Wl,-soname,libcuda.so.1"]
        command = [compiler, *options, str(_RUNTIME), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PlanishError(
            f"the kernels cannot be built as host code: {done.stderr.strip()[:600]}",
            where="CUDA emulation",
            hint="the emulation knows what integer and float32 kernels use; report the model",
        )


def emulate(artifact: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs of a compiled model, by a process of its own: a fault of a kernel ends that one."""
    with tempfile.TemporaryDirectory(prefix="planish-emulation-") as directory:
        given, found = Path(directory) / "inputs.npz", Path(directory) / "outputs.npz"
        np.savez(given, allow_pickle=False, **{f"x.{name}": array for name, array in feeds.items()})
        command = [sys.executable, "-m", "planish.backends.cuda.emulator", str(artifact), str(given), str(found)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PlanishError(
                f"the emulated model ended with {done.returncode}: {done.stderr.strip()[-600:]}",
                where="CUDA emulation",
                hint="a negative number is a signal: a kernel accessed memory that is not its own",
            )
        with np.load(found) as outputs:
            return {name[2:]: outputs[name] for name in outputs.files}


def main(artifact: str, given: str, found: str) -> None:
    """The program behind `emulate`; names in the files start with `x.`."""
    from ..tvm.load import CompiledModel

    with tempfile.TemporaryDirectory(prefix="planish-emulation-") as directory:
        library = Path(directory) / "libcuda.so.1"
        build(Path(artifact), library)
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)  # the model's dlopen finds it by its name
        model = CompiledModel(Path(artifact) / "model.so")
        with np.load(given) as inputs:
            outputs = model(**{name[2:]: inputs[name] for name in inputs.files})
        np.savez(found, allow_pickle=False, **{f"x.{name}": array for name, array in outputs.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])

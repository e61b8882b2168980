"""CUDA source to an image that the driver loads: by nvcc, or by the compiler library of NVIDIA's wheel."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import PlanishError, UsageError

__all__ = ["Image", "Toolchain", "toolchain"]

# Neither has --use_fast_math: integers and rounding would no longer be those of the reference.
_OPTIONS = ("-std=c++17", "--fmad=true")


@dataclass(frozen=True)
class Image:
    """suffix: of the file that holds it; contents: what cuModuleLoadData takes; ptx; log: ptxas on every kernel."""

    suffix: str
    contents: bytes
    ptx: str
    log: str


@dataclass(frozen=True)
class Toolchain:
    """A compiler that is there: its name with version, and `compile(source, architecture)`."""

    name: str
    compile: Callable[[str, str], Image]


def toolchain(architecture: str) -> Toolchain:
    """The compiler for an architecture: nvcc where it is on PATH, else the wheel's; PlanishError without both."""
    found: list[Toolchain] = []
    for make, supported in ((_nvcc, _nvcc_architectures), (_nvrtc, _nvrtc_architectures)):
        known = supported()
        if known is None:
            continue
        if architecture in known:
            return make()
        found.append(make())
    if found:
        names = " and ".join(compiler.name for compiler in found)
        raise UsageError(
            f"{names} cannot compile for {architecture}",
            where=f"CUDA back end, architecture {architecture}",
            hint="CUDA 13 has nothing below sm_75; for sm_72, an environment with "
            "pip install cuda-bindings==12.9.* nvidia-cuda-nvrtc-cu12==12.9.* and without nvcc 13 on PATH",
        )
    raise PlanishError(
        "there is neither nvcc on PATH nor NVIDIA's run-time compiler",
        where="CUDA back end",
        hint="pip install planish[cuda], or install the CUDA toolkit",
    )


def _nvcc_architectures() -> set[str] | None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    done = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=False)
    return set(done.stdout.split())


def _nvcc() -> Toolchain:
    nvcc = shutil.which("nvcc")
    assert nvcc is not None
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"release ([\d.]+)", text)
    return Toolchain(f"nvcc {version.group(1) if version else ''}".strip(), lambda *given: _run_nvcc(nvcc, *given))


def _run_nvcc(nvcc: str, source: str, architecture: str) -> Image:
    """A fat binary with code for the architecture and PTX, from which drivers make code for later ones."""
    virtual = architecture.replace("sm_", "compute_")
    with tempfile.TemporaryDirectory(prefix="planish-cuda-") as directory:
        folder = Path(directory)
        (folder / "model.cu").write_text(source, encoding="utf-8")
        code = [f"-gencode=arch={virtual},code=[{architecture},{virtual}]"]
        quiet = ["-diag-suppress=177", "-Xptxas=-v", "--keep", "--keep-dir", "."]
        command = [nvcc, *_OPTIONS, "-O3", *code, *quiet, "-fatbin", "-o", "model.fatbin", "model.cu"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise _failure("nvcc", done.stderr)
        ptx = next(folder.glob("*.ptx")).read_text(encoding="utf-8")
        return Image("fatbin", (folder / "model.fatbin").read_bytes(), ptx, done.stderr)


def _bindings() -> Any:
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return None
    from cuda.bindings import nvrtc

    return nvrtc


def _nvrtc_architectures() -> set[str] | None:
    nvrtc = _bindings()
    if nvrtc is None:
        return None
    try:
        status, numbers = nvrtc.nvrtcGetSupportedArchs()
    except (RuntimeError, OSError):  # the bindings are there without the library
        return None
    return None if int(status) else {f"sm_{number}" for number in numbers}


def _nvrtc() -> Toolchain:
    _, major, minor = _bindings().nvrtcVersion()
    return Toolchain(f"nvrtc {major}.{minor}", _run_nvrtc)


def _run_nvrtc(source: str, architecture: str) -> Image:
    """Code for the architecture; its PTX is compiled apart."""
    cubin, log = _compile(source, [f"--gpu-architecture={architecture}"], "CUBIN")
    ptx, _ = _compile(source, [f"--gpu-architecture={architecture.replace('sm_', 'compute_')}"], "PTX")
    return Image("cubin", cubin, ptx.rstrip(b"\0").decode(), log)


def _compile(source: str, options: list[str], kind: str) -> tuple[bytes, str]:
    nvrtc = _bindings()
    given = [option.encode() for option in (*_OPTIONS, "--ptxas-options=-v", "-diag-suppress=177", *options)]
    _, program = nvrtc.nvrtcCreateProgram(source.encode(), b"model.cu", 0, [], [])
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(given), given)
        log = b" " * nvrtc.nvrtcGetProgramLogSize(program)[1]
        nvrtc.nvrtcGetProgramLog(program, log)
        text = log.rstrip(b"\0 ").decode(errors="replace")
        if int(status):
            raise _failure("nvrtc", text)
        result = b" " * getattr(nvrtc, f"nvrtcGet{kind}Size")(program)[1]
        getattr(nvrtc, f"nvrtcGet{kind}")(program, result)
        return result, text
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _failure(compiler: str, text: str) -> PlanishError:
    errors = [line for line in text.splitlines() if "error" in line] or text.strip().splitlines()[-1:]
    return PlanishError(
        f"{compiler} refused a generated kernel: {errors[0].strip()[:300] if errors else 'no message'}",
        where="CUDA back end",
        hint="model.onnx runs in ONNX Runtime; please report the model",
    )

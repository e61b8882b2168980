"""Import TVM: the versions that work together, our tensor intrinsics, LLVM with the target's code generator."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ...errors import PlanishError, UsageError
from ...targets.target import Target

__all__ = ["FFI_VERSION", "TVM_VERSION", "check_versions", "llvm_target", "load"]

TVM_VERSION = "0.27.0.post1"
FFI_VERSION = "0.1.14.post1"


def check_versions(tvm: str | None, ffi: str | None) -> None:
    """Refuse versions that are missing or known to crash; the arguments are the installed versions."""
    if tvm is None:
        raise PlanishError("apache-tvm is not installed", where="TVM back end", hint=f"pip install {_pin()}")
    if ffi is not None and ffi.startswith("0.1.15"):
        raise PlanishError(
            f"apache-tvm-ffi {ffi} segfaults in Schedule.tensorize of apache-tvm {tvm}",
            where="TVM back end",
            hint=f"pip install apache-tvm-ffi=={FFI_VERSION}",
        )
    if tvm.split(".")[:2] != TVM_VERSION.split(".")[:2]:
        raise PlanishError(f"apache-tvm {tvm} is not supported", where="TVM back end", hint=f"pip install {_pin()}")


def _pin() -> str:
    return f"apache-tvm=={TVM_VERSION} apache-tvm-ffi=={FFI_VERSION}"


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def load() -> Any:
    """The `tvm` module, imported once and with our intrinsics registered."""
    check_versions(_installed("apache-tvm"), _installed("apache-tvm-ffi"))
    import tvm
    import tvm.target.codegen
    from tvm import relax, s_tir, te, tirx, topi  # noqa: F401

    from . import functions, intrinsics

    intrinsics.register()
    functions.register()
    # TVM does not know that this rounds vectors too, and would split every vector that it meets into scalars.
    tvm.ir.register_op_attr("tirx.nearbyint", "TVectorizable", True)
    return tvm


def llvm_target(target: Target) -> Any:
    """TVM's target for one of ours; UsageError when the wheel's LLVM cannot generate code for it."""
    tvm = load()
    options = dict(target.llvm)
    architecture = str(options.get("mtriple", target.triple)).partition("-")[0]
    known = {str(name) for name in tvm.target.codegen.llvm_get_targets()}
    if architecture not in known:
        raise UsageError(
            f"TVM's LLVM has no code generator for {architecture}; it has {', '.join(sorted(known))}",
            where=f"--target {target.name}",
            hint=f"install the wheel, which has every LLVM target: pip install {_pin()}",
        )
    return tvm.target.Target(options)

"""Link a compiled model: zig as the cross compiler for arm64, the system's compiler or zig for the host."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...errors import PlanishError
from ...targets.target import Target

__all__ = ["compiler", "link"]

# target kind -> zig's triple of the shared library (glibc 2.28: Debian 10, Raspberry Pi OS, JetPack) and of static ones
_ZIG_SHARED = {
    "aarch64-linux-gnu": ("aarch64-linux-gnu.2.28",),
    "x86_64-linux-gnu": ("x86_64-linux-gnu.2.28",),
    "hexagon-linux-musl": ("hexagon-linux-musl", "-mcpu=hexagonv66"),  # the oldest: one C library serves all
}
_ZIG_STATIC = _ZIG_SHARED | {"aarch64-linux-gnu": ("aarch64-linux-musl",), "x86_64-linux-gnu": ("x86_64-linux-musl",)}


def compiler(target: Target, *, static: bool = False) -> list[str]:
    """The command of a C compiler that makes code for the target."""
    native = target.kind == "host" or (target.kind == "cuda" and target.triple.startswith(platform.machine()))
    if native and not static:
        for name in ("cc", "gcc", "clang"):
            if found := shutil.which(name):
                return [found]
    if importlib.util.find_spec("ziglang") is None:
        what = "a C compiler, and neither cc nor ziglang is there" if native else "ziglang"
        raise PlanishError(
            f"linking for {target.name} needs {what}",
            where="TVM back end, linking model.so",
            hint="pip install planish[arm64]",
        )
    triple = (_ZIG_STATIC if static else _ZIG_SHARED)[target.triple]
    return [sys.executable, "-m", "ziglang", "cc", "-target", *triple]


def link(
    target: Target,
    directory: Path,
    sources: Sequence[str],
    output: str,
    options: Sequence[str] = (),
    *,
    static: bool = False,
    libraries: Sequence[str] = ("-lm",),
) -> None:
    """Compile and link sources and objects that lie in `directory` into `directory/output`."""
    # zig adds debug information, which names the directory: the same model would give other bytes in another place
    command = [*compiler(target, static=static), "-O2", "-g0", "-o", output, *sources, *options, *libraries]
    with tempfile.TemporaryDirectory(prefix="planish-zig-") as cache:
        # A private local cache: zig's default is a directory inside the working directory, the artifact.
        environment = os.environ | {"ZIG_LOCAL_CACHE_DIR": cache}
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PlanishError(
            f"linking {output} for {target.name} failed: {done.stderr.strip()[-600:]}",
            where=f"TVM back end: {' '.join(command[:4])}",
            hint="check the C compiler with a small program; see the message above",
        )

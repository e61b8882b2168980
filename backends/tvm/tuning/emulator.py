"""Programs for arm64 under QEMU with a plugin that counts what runs: no board, no clock."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from ....errors import PlanishError
from ....targets import host
from .. import link
from .cost import run

__all__ = ["Regions", "count", "missing"]

Block = tuple[int, ...]  # the words of a translation block
Regions = list[dict[Block, int]]  # for each marked region, how often each of its blocks ran

_SOURCE = Path(__file__).with_name("blocks.c")
_NAMES = ("qemu-aarch64", "qemu-aarch64-static")


def missing() -> str:
    """What this machine lacks for counting; empty when nothing."""
    found = _emulator()
    if found is None:
        return "qemu-aarch64 is not installed (Debian: apt install qemu-user)"
    return "" if _takes_plugins(found) else f"{found} takes no plugins; the dynamically linked one does (qemu-user)"


def count(
    command: Sequence[str], cpu: str, directory: Path, *, seconds: float = 300.0, options: Sequence[str] = ()
) -> tuple[str, Regions]:
    """Run a program under the emulator of a CPU: its standard output, and what ran between its markers."""
    if why := missing():
        raise PlanishError(why, where="instruction model", hint="install it, or tune with --rpc on a board")
    emulator = _emulator()
    assert emulator is not None
    with tempfile.TemporaryDirectory(prefix="planish-count-") as scratch:
        plugin, out = _plugin(Path(scratch)), Path(scratch) / "blocks"
        full = [emulator, "-cpu", cpu, *options, "-plugin", f"{plugin},out={out}", *command]
        text = run(full, directory, seconds)
        return text, _read(out)


def _read(path: Path) -> Regions:
    regions: Regions = []
    for line in path.read_text().splitlines() if path.exists() else ():
        if line == "region":
            regions.append({})
            continue
        times, *words = line.split()
        block = tuple(int(word, 16) for word in words)
        regions[-1][block] = regions[-1].get(block, 0) + int(times)
    return regions


def _plugin(directory: Path) -> Path:
    source = directory / "blocks.c"
    source.write_bytes(_SOURCE.read_bytes())
    # its functions are the emulator's, which are there when it loads the plugin
    link.link(host.resolve(None), directory, [source.name], "blocks.so", ["-shared", "-fPIC", "-Wl,-z,lazy"])
    return directory / "blocks.so"


def _emulator() -> str | None:
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


@cache
def _takes_plugins(emulator: str) -> bool:
    environment: Mapping[str, str] = os.environ
    done = subprocess.run([emulator, "-h"], capture_output=True, text=True, check=False, env=environment)
    return "-plugin" in done.stdout

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

__all__ = ["Regions", "count", "joined", "missing"]

Block = tuple[int, ...]  # the words of a translation block
Regions = list[dict[Block, int]]  # for each marked region, how often each of its blocks ran

_Run = tuple[int, int, Block]  # address, how often, words
# b and bl; b.cond; cbz, cbnz, tbz, tbnz; br, blr, ret; svc
_BRANCHES = (
    (0x7C000000, 0x14000000),
    (0xFF000000, 0x54000000),
    (0x7C000000, 0x34000000),
    (0xFE000000, 0xD6000000),
    (0xFFE0001F, 0xD4000001),
)
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
    """What the plugin wrote, with blocks joined that were only parted because a page of memory ends between them."""
    sections: list[list[_Run]] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        if line == "region":
            sections.append([])
            continue
        times, address, *words = line.split()
        sections[-1].append((int(address, 16), int(times), tuple(int(word, 16) for word in words)))
    return [joined(section) for section in sections]


def joined(runs: list[_Run]) -> dict[Block, int]:
    """How often each block ran; where one falls into another, whose runs are more than its own, the two are one.

    What is left of the other's runs came from elsewhere: a loop that a page's end cuts is entered twice there.
    """
    found: dict[Block, int] = {}
    starts: dict[int, tuple[int, Block]] = {}
    for address, times, words in sorted(runs, reverse=True):  # so that what is fallen into is whole already
        behind = address + 4 * len(words)
        count, tail = starts.get(behind, (0, ()))
        if not _branches(words[-1]) and count >= times:
            starts[behind] = (count - times, tail)
            words += tail
        before, other = starts.get(address, (0, words))
        found[other] = found.get(other, 0) + before
        starts[address] = (times, words)
    for times, words in starts.values():
        found[words] = found.get(words, 0) + times
    return {words: times for words, times in found.items() if times}


def _branches(word: int) -> bool:
    """Whether an arm64 instruction may go elsewhere: branches, calls, returns, system calls (Arm ARM, C4.1)."""
    return any(word & mask == code for mask, code in _BRANCHES)


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

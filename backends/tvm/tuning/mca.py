"""Cycles of instruction sequences by LLVM's machine code analyser: the throughput of a block that repeats itself.

A model of the pipeline without caches, branch prediction and overlap between blocks: it ranks, it does not time.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from ....errors import PlanishError

__all__ = ["MODELS", "cycles", "disassemble", "missing"]

Block = tuple[int, ...]

# cpu -> LLVM's scheduling model. LLVM 19 gives cortex-a76 and -x1 the tables of a cortex-a57, which has half their
# width; neoverse-n1, which is a cortex-a76 with a larger cache, has tables of its own.
MODELS: Mapping[str, str] = {
    "cortex-a53": "cortex-a53",
    "cortex-a55": "cortex-a55",
    "cortex-a72": "cortex-a72",
    "cortex-a76": "neoverse-n1",
    "cortex-x1": "neoverse-n1",
    "generic": "cortex-a53",
    "neoverse-n1": "neoverse-n1",
    "neoverse-v1": "neoverse-v1",
}
_FEATURES = "+v8.6a,+dotprod,+i8mm,+bf16,+fullfp16,+sve,+sve2,+lse,+pauth"
_ITERATIONS = 50
_VERSIONS = range(25, 13, -1)
_NOP = "nop"  # for words that are no instruction of the analyser, such as system calls' private data


def missing() -> str:
    """What this machine lacks for the analysis; empty when nothing."""
    lacking = [name for name in ("llvm-mca", "llvm-mc") if _tool(name) is None]
    return f"{' and '.join(lacking)} not installed (Debian: apt install llvm-19)" if lacking else ""


def cycles(blocks: Iterable[Block], model: str) -> dict[Block, float]:
    """Cycles of one pass through each block, by an LLVM scheduling model."""
    wanted = list(dict.fromkeys(blocks))
    known = disassemble({word for block in wanted for word in block})
    text = []
    for i, block in enumerate(wanted):
        text.append(f"# LLVM-MCA-BEGIN b{i}")
        text += [known[word] for word in block]
        text.append(f"# LLVM-MCA-END b{i}")
    options = [f"-mcpu={model}", f"-mattr={_FEATURES}", f"-iterations={_ITERATIONS}"]
    options += ["-instruction-info=0", "-resource-pressure=0", "-skip-unsupported-instructions=any"]
    out = _run("llvm-mca", [*options, "-"], "\n".join(text) + "\n")
    found: dict[Block, float] = {}
    for part in re.split(r"^\[\d+\] Code Region - ", out, flags=re.MULTILINE)[1:]:
        name = re.match(r"b(\d+)", part)
        total = re.search(r"Total Cycles:\s+(\d+)", part)
        if name and total:
            found[wanted[int(name[1])]] = int(total[1]) / _ITERATIONS
    if len(found) != len(wanted):
        raise PlanishError(
            f"llvm-mca analysed {len(found)} of {len(wanted)} blocks",
            where=f"instruction model, {model}",
            hint="install a newer LLVM (19 or later knows these CPUs)",
        )
    return found


def disassemble(words: Iterable[int]) -> dict[int, str]:
    """The text of each instruction word."""
    wanted = sorted(set(words))
    lines = [" ".join(f"0x{byte:02x}" for byte in struct.pack("<I", word)) for word in wanted]
    command = ["--disassemble", f"-mattr={_FEATURES}"]
    out, errors = _both("llvm-mc", command, "\n".join(lines) + "\n")
    unknown = {int(number) for number in re.findall(r"<stdin>:(\d+):\d+: warning", errors)}
    texts = iter(line.strip() for line in out.splitlines() if line.strip() and not line.strip().startswith("."))
    found = {w: _NOP if number in unknown else next(texts, _NOP) for number, w in enumerate(wanted, start=1)}
    return {word: re.sub(r"\s+", " ", text) for word, text in found.items()}


@cache
def _tool(name: str) -> str | None:
    """The newest version of an LLVM tool: plain, or with its version behind the name."""
    versioned = (f"{name}-{version}" for version in _VERSIONS)
    return next((found for candidate in (*versioned, name) if (found := shutil.which(candidate))), None)


def _run(name: str, options: Sequence[str], text: str) -> str:
    return _both(name, options, text)[0]


def _both(name: str, options: Sequence[str], text: str) -> tuple[str, str]:
    """Standard output and error of an LLVM tool."""
    tool = _tool(name)
    if tool is None:
        raise PlanishError(missing(), where="instruction model", hint="install it, or tune with --rpc on a board")
    command = [tool, "-triple=aarch64" if name == "llvm-mc" else "-mtriple=aarch64", *options]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode and not done.stdout:
        raise PlanishError(
            f"{name} failed: {done.stderr.strip()[-300:]}", where="instruction model", hint="check the LLVM tools"
        )
    return done.stdout, done.stderr

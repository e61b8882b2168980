"""Run a compiled model under qemu-hexagon and count what it executes: instructions, no cycles."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import PlanishError
from ...targets.target import Target
from ..tvm import link

__all__ = ["Counts", "Runner", "unavailable"]

Array = npt.NDArray[np.generic]

_EMULATED = ("v66",)  # QEMU 7.2 stops at v67, and the later instructions are not used before v68

# Raw system calls, so that it needs no C library: building one takes zig a minute. Inputs come in order from standard
# input, outputs go to standard output. QEMU keeps its counters in control registers 20 to 22, of which an assembler
# knows nothing: the words are `r0 = c20` and so on.
_SOURCE = """\
#include "model.h"

static long call(long number, long a, long b, long c) {
  register long r0 __asm__("r0") = a, r1 __asm__("r1") = b, r2 __asm__("r2") = c, r6 __asm__("r6") = number;
  __asm__ volatile("trap0(#1)" : "+r"(r0) : "r"(r1), "r"(r2), "r"(r6) : "memory");
  return r0;
}

enum { READ = 63, WRITE = 64, EXIT = 94, BRK = 214 };

static void transfer(long number, long file, void *data, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    long n = call(number, file, (long)((char *)data + done), (long)(bytes - done));
    if (n <= 0) call(EXIT, 3, 0, 0);
    done += (size_t)n;
  }
}

#define COUNTER(word) ({ uint32_t n; __asm__ volatile(".word " #word "\\n\\t%0 = r0" : "=r"(n) : : "r0"); n; })
static void count(uint32_t *to) {
  to[0] = COUNTER(0x6a14c000);
  to[1] = COUNTER(0x6a15c000);
  to[2] = COUNTER(0x6a16c000);
}

static void *memory(size_t bytes) {
  long start = (call(BRK, 0, 0, 0) + 127) / 128 * 128;
  if (call(BRK, start + (long)bytes, 0, 0) < start + (long)bytes) call(EXIT, 4, 0, 0);
  return (void *)start;
}

int main(void) {
  int ins, outs;
  const model_tensor *in = model_inputs(&ins), *out = model_outputs(&outs);
  void *tensors[MODEL_INPUTS + MODEL_OUTPUTS + 1], *arena = memory(MODEL_ARENA_BYTES + 1);
  for (int i = 0; i < ins + outs; ++i) {
    size_t bytes = i < ins ? in[i].bytes : out[i - ins].bytes;
    tensors[i] = memory(bytes);
    if (i < ins) transfer(READ, 0, tensors[i], bytes);
  }
  uint32_t before[3], after[3];
  count(before);
  int code = model_run((const void *const *)tensors, tensors + ins, arena);
  count(after);
  for (int i = 0; i < 3; ++i) after[i] -= before[i];
  for (int i = 0; i < outs; ++i) transfer(WRITE, 1, tensors[ins + i], out[i].bytes);
  transfer(WRITE, 2, after, sizeof after);
  return code;
}

#ifdef FREESTANDING
void *memset(void *to, int value, size_t bytes) {
  unsigned char *at = to, *end = at + bytes;
  for (; at < end && ((uintptr_t)at % 8 || end - at < 8); ++at) *at = (unsigned char)value;
  for (; end - at >= 8; at += 8) *(uint64_t *)at = 0x0101010101010101u * (unsigned char)value;
  for (; at < end; ++at) *at = (unsigned char)value;
  return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
  char *at = to, *end = at + bytes;
  const char *source = from;
  if (((uintptr_t)at | (uintptr_t)source) % 8 == 0)
    for (; end - at >= 8; at += 8, source += 8) *(uint64_t *)at = *(const uint64_t *)source;
  for (; at < end; ++at, ++source) *at = *source;
  return to;
}

void leave(void) { call(EXIT, main(), 0, 0); }
__asm__(".globl _start\\n_start:\\n  r29 = and(r29, #-128)\\n  call leave\\n");
#endif
"""

_STRING = "#include <stddef.h>\nvoid *memcpy(void *restrict to, const void *restrict from, size_t bytes);\n"


@dataclass(frozen=True)
class Counts:
    """What one run executed, as QEMU counts it: packets, instructions in them, and those of the vector unit."""

    packets: int
    instructions: int
    vector: int

    def __str__(self) -> str:
        return (
            f"{self.instructions:,} instructions in {self.packets:,} packets, {self.vector:,} of them HVX, "
            "counted by qemu-hexagon; these are no cycles"
        )


def unavailable(target: Target) -> str:
    """Why a model for the target cannot be run here; "" when it can."""
    if target.cpu not in _EMULATED:
        return f"qemu-hexagon of 2023 emulates {', '.join(_EMULATED)}, not {target.cpu}"
    return "" if shutil.which("qemu-hexagon") else "qemu-hexagon is not installed (package qemu-user)"


class Runner:
    """A program around the model in `directory`; PlanishError where it cannot be linked.

    libc: link the C library, which models need whose float operators call its functions.
    """

    def __init__(self, directory: Path, target: Target, *, libc: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="planish-hexagon-")
        source = Path(self._folder.name) / "runner.c"
        source.write_text(_SOURCE)
        self._program = str(source.with_suffix(""))
        options = ["-static", f"-I{directory.resolve()}"]
        if not libc:
            source.with_name("string.h").write_text(_STRING)
            options += ["-nostdlib", "-fno-builtin", "-DFREESTANDING", f"-I{source.parent}"]
        sources = [str(source), "model.c", "weights.S", "model.o"]
        libraries = ["-lm"] if libc else []
        link.link(target, directory, sources, self._program, options, static=True, libraries=libraries)

    def __call__(
        self, feeds: Mapping[str, Array], like: Mapping[str, Array], *, timeout: float | None = None
    ) -> tuple[dict[str, Array], Counts]:
        """Run once: inputs in the model's order, outputs in the shapes and types of `like`."""
        given = b"".join(np.ascontiguousarray(array).tobytes() for array in feeds.values())
        command = ["qemu-hexagon", self._program]
        done = subprocess.run(command, input=given, capture_output=True, timeout=timeout, check=False)
        if done.returncode or len(done.stderr) != 12:
            raise PlanishError(
                f"the model stopped with code {done.returncode}: {done.stderr[-300:].decode(errors='replace')}",
                where="qemu-hexagon",
                hint="please report the model",
            )
        packets, instructions, vector = np.frombuffer(done.stderr, "<u4").tolist()
        found, start = {}, 0
        for name, array in like.items():
            found[name] = np.frombuffer(done.stdout, array.dtype, array.size, start).reshape(array.shape)
            start += array.nbytes
        return found, Counts(packets, instructions, vector)

"""The machine that runs the compiler: its own CPU and extensions, read from the processor."""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from pathlib import Path

import onnx_ir as ir

from . import arm64
from .cpu import INTEGER_OPS, MOVEMENT_OPS
from .target import Instruction, Target

__all__ = ["resolve"]

_VNNI = Instruction("vpdpbusd", lanes=16, depth=4, activation=ir.DataType.UINT8)
_AVX2 = Instruction("vpmaddwd", lanes=8, depth=2, activation=ir.DataType.UINT8)

_ARCH_PRCTL = 158  # the number of the system call on x86-64
# Linux's name of a processor flag -> LLVM's name of the feature
_FEATURES = {
    "sse4_2": "sse4.2",
    "fma": "fma",
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512_vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
    "avx_vnni": "avxvnni",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
}

_BFLOAT16 = {"amx-bf16", "avx512bf16"}  # with either of which a model in bfloat16 is faster than in float32
_AMX = {"amx-tile", "amx-int8", "amx-bf16"}


@cache
def _flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return frozenset(lines[0].partition(":")[2].split()) if lines else frozenset()


@cache
def _tiles_granted() -> bool:
    """Whether Linux lets this process use AMX's tile registers (ARCH_REQ_XCOMP_PERM, XTILEDATA)."""
    try:
        return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, 0x1023, 18) == 0)
    except (OSError, AttributeError):
        return False


def resolve(cpu: str | None) -> Target:
    """The table of this machine; `cpu` must be None or `native`."""
    if platform.machine() in ("aarch64", "arm64"):
        flags = _flags()
        name = "neoverse-v1" if "i8mm" in flags else "cortex-a76" if "asimddp" in flags else "generic"
        table = arm64.resolve(name)
        return Target(**{**table.__dict__, "name": "host", "kind": "host"})
    features = frozenset(llvm for linux, llvm in _FEATURES.items() if linux in _flags())
    if "amx-tile" in features and not _tiles_granted():
        features -= _AMX
    if "amx_bf16" in _flags():  # cores with it multiply by AVX512-BF16 slower than by float32, granted or not
        features -= {"avx512bf16"}
    instruction = _VNNI if "avx512vnni" in features else _AVX2 if "avx2" in features else None
    return Target(
        name="host",
        kind="host",
        cpu="native",
        triple="x86_64-linux-gnu",
        features=features | {"activation-products"} | ({"bfloat16"} if features & _BFLOAT16 else set()),
        activation=ir.DataType.UINT8,
        weight=ir.DataType.INT8,
        instruction=instruction,
        integer_ops=INTEGER_OPS,
        movement_ops=MOVEMENT_OPS,
        channel_alignment=instruction.lanes if instruction else 4,
        cache_bytes=1024 * 1024,
        llvm={
            "kind": "llvm",
            "mtriple": "x86_64-linux-gnu",
            "mcpu": "x86-64",
            "mattr": [f"+{f}" for f in sorted(features)],
            "num-cores": 1,
        },
    )

"""64-bit ARM Linux CPUs: signed activations, SDOT or SMMLA where the core has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from .cpu import INTEGER_OPS, MOVEMENT_OPS
from .target import Instruction, Target

__all__ = ["CPUS", "resolve"]

_SMLAL = Instruction("smlal", lanes=4, depth=1, activation=ir.DataType.INT8)
_SDOT = Instruction("sdot", lanes=4, depth=4, activation=ir.DataType.INT8)
_SMMLA = Instruction("smmla", lanes=4, depth=8, activation=ir.DataType.INT8)


@dataclass(frozen=True)
class Cpu:
    """One core: its LLVM architecture level, extensions beyond NEON, and the cache a tile should fit in."""

    architecture: str
    features: tuple[str, ...]
    cache_bytes: int


_KIB = 1024
# cpu -> facts; features are LLVM's names (sources: Arm technical reference manuals)
CPUS: Mapping[str, Cpu] = {
    "generic": Cpu("v8a", (), 512 * _KIB),
    "cortex-a53": Cpu("v8a", (), 512 * _KIB),
    "cortex-a55": Cpu("v8.2a", ("dotprod",), 256 * _KIB),
    "cortex-a72": Cpu("v8a", (), 1024 * _KIB),
    "cortex-a76": Cpu("v8.2a", ("dotprod",), 512 * _KIB),
    "cortex-x1": Cpu("v8.2a", ("dotprod",), 1024 * _KIB),
    "neoverse-n1": Cpu("v8.2a", ("dotprod",), 1024 * _KIB),
    "neoverse-v1": Cpu("v8.4a", ("dotprod", "i8mm", "sve"), 1024 * _KIB),
}
DEFAULT = "cortex-a76"


def resolve(cpu: str | None) -> Target:
    """The table of `arm64/CPU`; without a cpu, one with dotprod (every application core since 2018)."""
    name = cpu or DEFAULT
    core = CPUS[name]
    features = frozenset(core.features) | {"neon"}
    instruction = _SMMLA if "i8mm" in features else _SDOT if "dotprod" in features else _SMLAL
    return Target(
        name=f"arm64/{name}",
        kind="arm64",
        cpu=name,
        triple="aarch64-linux-gnu",
        features=features | {"activation-products"},
        activation=ir.DataType.INT8,
        weight=ir.DataType.INT8,
        instruction=instruction,
        integer_ops=INTEGER_OPS,
        movement_ops=MOVEMENT_OPS,
        channel_alignment=8 if instruction is _SMMLA else 4,
        cache_bytes=core.cache_bytes,
        llvm={
            "kind": "llvm",
            "mtriple": "aarch64-linux-gnu",
            "mcpu": name,
            "mattr": [f"+{core.architecture}", "+neon", *(f"+{f}" for f in core.features)],
            "num-cores": 1,
        },
    )

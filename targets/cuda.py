"""NVIDIA GPUs: architectures by compute capability, and the Jetson boards with a name of their own."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from .cpu import INTEGER_OPS, MOVEMENT_OPS
from .target import Instruction, Target

__all__ = ["ARCHITECTURES", "BOARDS", "KIND", "Architecture", "architecture", "resolve", "resolve_board"]

KIND = "cuda"
SHARED_BYTES = 48 * 1024  # what a block of every architecture can have without asking for more


@dataclass(frozen=True)
class Architecture:
    """processors: streaming multiprocessors of the part named beside it; bfloat16: its tensor cores take it."""

    capability: int
    processors: int
    bfloat16: bool


# member -> facts (CUDA C++ Programming Guide, compute capabilities; data sheets of the parts)
ARCHITECTURES: Mapping[str, Architecture] = {
    "sm_72": Architecture(72, 8, bfloat16=False),  # Jetson AGX Xavier
    "sm_75": Architecture(75, 40, bfloat16=False),  # T4
    "sm_80": Architecture(80, 108, bfloat16=True),  # A100
    "sm_86": Architecture(86, 82, bfloat16=True),  # RTX 3090
    "sm_87": Architecture(87, 16, bfloat16=True),  # Jetson AGX Orin
    "sm_89": Architecture(89, 58, bfloat16=True),  # L4
    "sm_90": Architecture(90, 132, bfloat16=True),  # H100
    "sm_100": Architecture(100, 148, bfloat16=True),  # B200
}
DEFAULT = "sm_80"

# board -> member
BOARDS: Mapping[str, str] = {"jetson-orin": "sm_87", "jetson-xavier": "sm_72"}

_FEATURES = frozenset({"bfloat16", "dp4a", "float16", "s8-tensor-core"})
_DP4A = Instruction("dp4a", lanes=1, depth=4, activation=ir.DataType.INT8)
_NATIVE = {"x86_64": "x86_64-linux-gnu", "AMD64": "x86_64-linux-gnu"}
_JETSON = "aarch64-linux-gnu"


def architecture(target: Target) -> Architecture:
    """The facts of a target of this kind."""
    return ARCHITECTURES[target.cpu]


def resolve(member: str | None) -> Target:
    """The table of `cuda/MEMBER`, with the host this machine is; without a member, one whose code newer GPUs take."""
    return _table(f"{KIND}/{member or DEFAULT}", member or DEFAULT, _NATIVE.get(platform.machine(), _JETSON))


def resolve_board(board: str, _member: str | None = None) -> Target:
    """The table of a Jetson board, whose host is 64-bit ARM; it has no members."""
    return _table(board, BOARDS[board], _JETSON)


def _table(name: str, member: str, triple: str) -> Target:
    facts = ARCHITECTURES[member]
    return Target(
        name=name,
        kind=KIND,
        cpu=member,
        triple=triple,
        features=_FEATURES | ({"bf16-tensor-core"} if facts.bfloat16 else set()),
        activation=ir.DataType.INT8,
        weight=ir.DataType.INT8,
        instruction=_DP4A,
        integer_ops=INTEGER_OPS,
        movement_ops=MOVEMENT_OPS,
        channel_alignment=16,
        cache_bytes=SHARED_BYTES,
    )

"""Qualcomm Hexagon DSPs with HVX: vectors of 128 bytes, VRMPY, no floating point in vectors before v68."""

from __future__ import annotations

import onnx_ir as ir

from .cpu import INTEGER_OPS, MOVEMENT_OPS
from .target import Instruction, Target

__all__ = ["DEFAULT", "KIND", "VERSIONS", "resolve"]

KIND = "hexagon"
VERSIONS = ("v66", "v68", "v69", "v71", "v73")  # those with HVX and an LLVM processor of their own
DEFAULT = "v66"  # later ones run its code, and it is the last that qemu-user of 2023 emulates

_VRMPY = Instruction("vrmpy", lanes=32, depth=4, activation=ir.DataType.UINT8)


def resolve(cpu: str | None) -> Target:
    """The table of `hexagon/VERSION`."""
    version = cpu or DEFAULT
    return Target(
        name=f"hexagon/{version}",
        kind=KIND,
        cpu=version,
        triple="hexagon-linux-musl",
        features=frozenset({"hvx", "hvx-length128b"}),
        activation=ir.DataType.UINT8,
        weight=ir.DataType.INT8,
        instruction=_VRMPY,
        integer_ops=INTEGER_OPS,
        movement_ops=MOVEMENT_OPS,
        channel_alignment=_VRMPY.lanes,
        cache_bytes=1024 * 1024,  # second level; the first is bypassed by HVX
        llvm={
            "kind": "llvm",
            "mtriple": "hexagon-unknown-linux-musl",
            "mcpu": f"hexagon{version}",
            "mattr": [f"+hvx{version}", "+hvx-length128b"],
            "num-cores": 1,
        },
    )

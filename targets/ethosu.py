"""Arm Ethos-U NPUs: the members, what Vela assumes around each, and how quantized values must look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from .cpu import INTEGER_OPS, MOVEMENT_OPS
from .target import Target

__all__ = ["ACCELERATORS", "KIND", "Accelerator", "resolve"]

KIND = "ethos-u"


@dataclass(frozen=True)
class Accelerator:
    """One member: multipliers, the system and memory mode of Arm's vela.ini, and whether 2:4 zeros save cycles.

    sram_bytes: the arena that fits the usual part around this member; `--sram` of the compiler states another.
    """

    family: str
    macs: int
    system: str
    memory: str
    clock_hz: int
    sram_bytes: int
    sparse: bool = False


_KIB = 1024
_U55 = ("Ethos_U55_High_End_Embedded", "Shared_Sram", 500_000_000, 4096 * _KIB)
_U65 = ("Ethos_U65_High_End", "Dedicated_Sram", 1_000_000_000, 4096 * _KIB)
_U85 = ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram", 1_000_000_000, 4096 * _KIB)

# target name -> member (Arm Ethos-U technical overviews; system names are those of vela.ini)
ACCELERATORS: Mapping[str, Accelerator] = {
    **{f"ethos-u55-{n}": Accelerator("u55", n, *_U55) for n in (32, 64, 128, 256)},
    **{f"ethos-u65-{n}": Accelerator("u65", n, *_U65) for n in (256, 512)},
    **{f"ethos-u85-{n}": Accelerator("u85", n, *_U85, sparse=True) for n in (128, 256, 512, 1024, 2048)},
}

# factors of a product may both be computed; sums and products with constants; activations may have 16 bits; weights are
# stored encoded, so few levels are read in fewer bits
_FEATURES = frozenset(
    {"activation-products", "constant-operands", "int16-activations", "linear-resize", "weight-decoder"}
)
_FURTHER_OPS = {
    "Abs": "",
    "ConvTranspose": "constant weights, one group, explicit pads",
    "Exp": "",
    "Gelu": "",
    "Pow": "exponent −0.5 (a reciprocal square root)",
    "Softmax": "",
}

# (operator, type) -> (scale, zero point) of its result: TFLite's kernels know no other
_FIXED: Mapping[tuple[str, ir.DataType], tuple[float, int]] = {
    ("Sigmoid", ir.DataType.INT8): (1 / 256, -128),
    ("Softmax", ir.DataType.INT8): (1 / 256, -128),
    ("Tanh", ir.DataType.INT8): (1 / 128, 0),
    **{(op, ir.DataType.INT16): (1 / 32768, 0) for op in ("Sigmoid", "Softmax", "Tanh")},
}


def resolve(name: str, _member: str | None = None) -> Target:
    """The table of one member, such as `ethos-u55-256`; it has no members of its own."""
    member = ACCELERATORS[name]
    return Target(
        name=name,
        kind=KIND,
        cpu=name,
        triple="",
        features=_FEATURES | ({"sparse-2:4"} if member.sparse else frozenset()),
        activation=ir.DataType.INT8,
        weight=ir.DataType.INT8,
        instruction=None,
        integer_ops={**INTEGER_OPS, **_FURTHER_OPS},
        movement_ops=MOVEMENT_OPS,
        channel_alignment=16,
        cache_bytes=member.sram_bytes,
        integer_results=True,
        fixed_encodings=_FIXED,
    )

"""What became of every kernel: registers and shared memory from ptxas, kinds of instructions from its PTX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .compiler import Image

__all__ = ["KINDS", "KernelFacts", "inspect"]

# kind of product -> the PTX instruction that shows it, most capable first
_INSTRUCTIONS: Mapping[str, str] = {
    "tensor core": r"\b(?:wmma\.)?mma\.sync\b",
    "dp4a": r"\bdp4a\.",
    "fma": r"\bfma\.rn\.",
}


KINDS = (*_INSTRUCTIONS, "no products")


@dataclass(frozen=True)
class KernelFacts:
    """One compiled kernel; registers a thread, static shared memory of a block in bytes, spilled bytes of a thread."""

    name: str
    registers: int
    shared_bytes: int
    spilled_bytes: int
    products: str


def inspect(image: Image) -> list[KernelFacts]:
    """The kernels of an image, by name."""
    bodies = dict(re.findall(r"\.entry (\w+)\(.*?\)(.*?)(?=\.entry |\Z)", image.ptx, flags=re.DOTALL))
    facts = []
    for block in re.split(r"Compiling entry function ", image.log)[1:]:
        name = re.match(r"'(\w+)'", block)
        registers = re.search(r"Used (\d+) registers", block)
        if name is None or registers is None:
            continue
        shared, spilled = re.search(r"(\d+) bytes smem", block), re.search(r"(\d+) bytes spill stores", block)
        body = bodies.get(name.group(1), "")
        products = next((kind for kind, pattern in _INSTRUCTIONS.items() if re.search(pattern, body)), KINDS[-1])
        facts.append(
            KernelFacts(
                name.group(1),
                int(registers.group(1)),
                int(shared.group(1)) if shared else 0,
                int(spilled.group(1)) if spilled else 0,
                products,
            )
        )
    return sorted(facts, key=lambda kernel: kernel.name)

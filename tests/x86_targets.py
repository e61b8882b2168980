"""x86-64 machines by their instructions, whatever the machine that the tests run on has."""

from dataclasses import replace

import onnx_ir as ir
from planish.targets import host
from planish.targets.registry import resolve
from planish.targets.target import Target

__all__ = ["avx2", "vnni"]


def vnni(*more: str) -> Target:
    """AVX-512 with VNNI, and further features."""
    features = frozenset({"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", *more})
    mattr = [f"+{feature}" for feature in more]
    machine = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "cascadelake", "mattr": mattr, "num-cores": 1}
    table = replace(resolve("host"), triple="x86_64-linux-gnu", features=features, llvm=machine)
    return replace(table, activation=ir.DataType.UINT8, instruction=host._VNNI)


def avx2() -> Target:
    """AVX2 and nothing wider."""
    machine = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell", "num-cores": 1}
    features = frozenset({"avx2", "fma", "sse4.2"})
    return replace(vnni(), features=features, llvm=machine, instruction=host._AVX2)

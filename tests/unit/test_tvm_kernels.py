"""The machine code: the target's dot product and its rounding instruction, C functions without any runtime."""

import re
import subprocess
import sys

import pytest
from planish.backends.tvm import kernels
from planish.backends.tvm.lower import lower
from planish.targets.registry import resolve
from planish.targets.target import Target

from ..integer_layers import conv
from ..x86_targets import avx2, vnni


def _assembly(target: Target) -> str:
    program, _ = lower(conv(32, "8,8", target.activation.name.lower()), target)
    library, _ = kernels.build(program.kernels, "k_", target)
    return kernels.assembly(library)


@pytest.mark.parametrize("target, present, absent", [
    (resolve("arm64/neoverse-v1"), "smmla", "sdot"),
    (resolve("arm64/neoverse-n1"), "sdot", "smmla"),
    (resolve("arm64/cortex-a53"), "smlal2?", "mla|sdot|smmla"),
    (resolve("arm64/cortex-a72"), "smlal2?", "mla|sdot|smmla"),
    (avx2(), "vpmaddwd", "vpdpbusd|vpmaddubsw|tdpbusd"),
    (vnni(), "vpdpbusd", "tdpbusd"),
    (vnni("amx-tile", "amx-int8"), "tdpbusd", "vpdpbusd"),
], ids=["smmla", "sdot", "a53", "a72", "avx2", "vnni", "amx"])  # fmt: skip
def test_the_dot_product_instruction_is_the_targets(target: Target, present: str, absent: str) -> None:
    text = _assembly(target)
    assert re.search(rf"\t({present})\t", text)
    assert not re.search(rf"\t({absent})\t", text)


@pytest.mark.parametrize("target, rounding, division", [
    (resolve("arm64/cortex-a53"), r"fadd\tv", r"fdiv\tv"), (vnni(), "vcvtps2dq", "vdivps"),
], ids=["arm64", "x86"])  # fmt: skip
def test_rounding_is_one_instruction_and_nothing_is_called(target: Target, rounding: str, division: str) -> None:
    text = _assembly(target)
    assert re.search(rf"\t{rounding}", text)
    assert not re.search(rf"\t{division}", text), "a reciprocal and remainders give the same bits sooner"
    called = set(re.findall(r"\t(?:bl|call|callq|jmp)\t([A-Za-z_]\w*)", text))
    assert called <= {"memset", "memcpy"}, "kernels need no runtime"


TENSORIZE = """
from planish.backends.tvm import environment
tvm = environment.load()
from tvm.s_tir import Schedule
te = tvm.te
a = te.placeholder((8, 4), "int8", name="a")
b = te.placeholder((4, 4), "int8", name="b")
k = te.reduce_axis((0, 4), name="k")
c = te.compute((8, 4), lambda i, j: te.sum(a[i, k].astype("int32") * b[j, k].astype("int32"), axis=k), name="c")
schedule = Schedule(te.create_prim_func([a, b, c]))
block = schedule.get_sblock("c")
i, j, k = schedule.get_loops(block)
schedule.decompose_reduction(block, j)
schedule.tensorize(j, "planish.sdot")
assert "sdot" in schedule.mod.script()
print("tensorized")
"""


def test_tensorize_does_not_crash_with_the_pinned_versions() -> None:
    """A segfault would take the suite with it, so another process tries it."""
    done = subprocess.run([sys.executable, "-c", TENSORIZE], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("tensorized"), done.stderr[-2000:]

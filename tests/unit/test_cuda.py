"""CUDA targets, the choice of a compiler, tiles, what is read from PTX and ptxas, and messages."""

from functools import cache
from pathlib import Path

import onnx_ir as ir
import planish
import pytest
from planish.backends.cuda import compiler
from planish.backends.cuda.compile import compile_model
from planish.backends.cuda.compiler import Image, Toolchain, toolchain
from planish.backends.cuda.inspection import inspect
from planish.backends.cuda.tiles import Tile, choose, space
from planish.backends.tvm.operators.workload import Workload
from planish.errors import ModelError, PlanishError, UsageError
from planish.ir.text import parse_model
from planish.targets.cuda import ARCHITECTURES, SHARED_BYTES
from planish.targets.registry import resolve


def _workload(size: int, filters: int, channels: int = 64) -> Workload:
    ones = (1, 1)
    return Workload(
        1, channels, (size, size), filters, ones, ones, ones, (0, 0, 0, 0), 16, 16, "planish.wmma_multiply", "int8", 0
    )


def test_targets_name_their_architecture_and_host() -> None:
    assert resolve("cuda/sm_90").cpu == "sm_90"
    assert resolve("cuda").cpu == "sm_80"
    assert (resolve("jetson-orin").cpu, resolve("jetson-orin").triple) == ("sm_87", "aarch64-linux-gnu")
    assert resolve("jetson-xavier").cpu == "sm_72"
    assert all(resolve(f"cuda/{name}").activation == ir.DataType.INT8 for name in ARCHITECTURES)


def test_an_unknown_architecture_is_refused_with_near_names() -> None:
    with pytest.raises(UsageError, match="no target called 'cuda/sm_85'") as error:
        resolve("cuda/sm_85")
    assert "cuda/sm_86" in error.value.hint


def test_without_a_compiler_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.shutil, "which", lambda _name: None)
    monkeypatch.setattr(compiler, "_bindings", lambda: None)
    with pytest.raises(PlanishError, match="neither nvcc on PATH nor") as error:
        toolchain("sm_80")
    assert "pip install planish[cuda]" in error.value.hint


def test_an_architecture_that_the_compiler_dropped_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_nvcc_architectures", lambda: {"sm_80"})
    monkeypatch.setattr(compiler, "_nvcc", lambda: Toolchain("nvcc 13.0", lambda *_: Image("", b"", "", "")))
    monkeypatch.setattr(compiler, "_nvrtc_architectures", lambda: None)
    assert toolchain("sm_80").name == "nvcc 13.0"
    with pytest.raises(UsageError, match=r"nvcc 13\.0 cannot compile for sm_72") as error:
        toolchain("sm_72")
    assert "cuda-bindings==12.9" in error.value.hint


def test_free_dimensions_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = Toolchain("nvcc", lambda *_: Image("", b"", "", ""))
    monkeypatch.setattr("planish.backends.cuda.compile.toolchain", lambda _architecture: fake)
    model = parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> main (float[1,3,H,W] x) => (float[1,3,H,W] y) { y = Relu (x) }'
    )
    with pytest.raises(ModelError, match="dynamic shape") as error:
        compile_model(model, resolve("cuda/sm_80"), tmp_path)
    assert "--shape x:1,3,224,224" in error.value.hint


def test_tiles_fit_shared_memory_and_are_smaller_where_the_gpu_would_stay_empty() -> None:
    small, large = _workload(8, 64), _workload(112, 256)
    for workload in (small, large):
        assert all(tile.shared_bytes <= SHARED_BYTES for tile in space(workload))
        assert all(tile.rows % tile.warps[0] == 0 == tile.columns % tile.warps[1] for tile in space(workload))
    assert choose(large, 108) == Tile(8, 4, 4, (4, 1))
    tile = choose(small, 108)
    assert (tile.rows, tile.columns) == (1, 1)
    assert [t.columns for t in space(_workload(8, 10))] == [1] * len(space(_workload(8, 10)))


def test_facts_of_kernels_are_read_from_ptx_and_ptxas() -> None:
    ptx = """
.visible .entry conv_kernel(
.param .u64 a
)
{ wmma.mma.sync.aligned.row.col.m16n16k16.s32.s8.s8.s32 {%r1}, {%r2}; }
.visible .entry dense_kernel(
.param .u64 a
)
{ dp4a.s32.s32 %r1, %r2, %r3, %r4; }
"""
    log = """
ptxas info    : Compiling entry function 'dense_kernel' for 'sm_80'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 42 registers, used 0 barriers, 392 bytes cmem[0]
ptxas info    : Compiling entry function 'conv_kernel' for 'sm_80'
    8 bytes stack frame, 12 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 3072 bytes smem, 416 bytes cmem[0]
"""
    conv, dense = inspect(Image("fatbin", b"", ptx, log))
    assert (conv.products, conv.registers, conv.shared_bytes, conv.spilled_bytes) == ("tensor core", 64, 3072, 12)
    assert (dense.name, dense.products, dense.registers, dense.shared_bytes) == ("dense_kernel", "dp4a", 42, 0)


def test_a_kernel_that_the_compiler_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = Toolchain("nvcc", lambda *_: Image("fatbin", b"", "", ""))
    monkeypatch.setattr("planish.backends.cuda.compile.toolchain", lambda _architecture: fake)
    model = parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> main (float[4,8] x) => (float[4,8] y) { y = Relu (x) }'
    )
    with pytest.raises(PlanishError, match="nvcc left out 1 kernels"):
        compile_model(model, resolve("cuda/sm_80"), tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.mark.parametrize("name", ["nvcc", "nvrtc"])
def test_generated_kernels_hold_the_instructions_they_are_made_of(name: str) -> None:
    """PTX of an int8 convolution and of a dense layer, by each compiler that is there."""
    supported, make = getattr(compiler, f"_{name}_architectures")(), getattr(compiler, f"_{name}")
    if supported is None:
        pytest.skip(f"{name} is not installed (nvrtc: extra cuda)")
    source = _digits_source()
    image = make().compile(source, "sm_80")
    kinds = {kernel.name: kernel.products for kernel in inspect(image)}
    assert {kind for kernel, kind in kinds.items() if kernel.startswith("conv")} == {"tensor core"}
    assert {kind for kernel, kind in kinds.items() if kernel.startswith("dense")} == {"dp4a"}
    assert "wmma.mma.sync.aligned.row.col.m16n16k16.s32.s8.s8.s32" in image.ptx
    assert "dp4a.s32.s32" in image.ptx
    assert image.contents[:4] in (b"\x50\xed\x55\xba", b"\x7fELF"), "a fat binary or a cubin"
    assert all(kernel.spilled_bytes == 0 for kernel in inspect(image))


@cache
def _digits_source() -> str:
    from planish.backends.batch import fix_batch
    from planish.backends.cuda import kernels
    from planish.backends.cuda.machine import CUDA
    from planish.backends.tvm.compile import prepared
    from planish.backends.tvm.lower import lower

    model = planish.optimize(Path(__file__).parents[2] / "examples" / "digits.onnx", target="cuda").model
    program, _ = lower(prepared(fix_batch(model)[0]), resolve("cuda"), None, CUDA)
    return kernels.build(program.kernels, resolve("cuda")).text

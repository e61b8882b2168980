"""Products of two bfloat16 activations: tile registers read a right factor that is packed in every run."""

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from planish.backends.tvm.compile import compile_model, prepared
from planish.backends.tvm.kernels import assembly, build_parts
from planish.backends.tvm.load import CompiledModel
from planish.backends.tvm.lower import lower
from planish.backends.tvm.operators.workload import space
from planish.ir.execute import execute
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.quantize.convert_float import ConvertFloat
from planish.targets import host
from planish.targets.registry import resolve
from planish.targets.target import Target

ATTENTION = """
<ir_version: 10, opset_import: ["" : 22]>
main (float[1,T,3,D] q, float[1,T,3,D] k, float[1,T,3,D] v) => (float[1,T,3,D] y, float[1,3,T,T] s)
{
   a = Transpose <perm = [0,2,1,3]> (q)
   b = Transpose <perm = [0,2,3,1]> (k)
   c = Transpose <perm = [0,2,1,3]> (v)
   s = MatMul (a, b)
   t = Relu (s)
   o = MatMul (t, c)
   y = Transpose <perm = [0,2,1,3]> (o)
}"""


def _attention(tokens: int, size: int) -> tuple[ir.Model, dict[str, np.ndarray]]:
    text = ATTENTION.replace("T,", f"{tokens},").replace("T]", f"{tokens}]").replace("D]", f"{size}]")
    rng = np.random.default_rng(0)
    return parse_model(text), {n: rng.normal(size=(1, tokens, 3, size)).astype(np.float32) for n in "qkv"}


@pytest.mark.parametrize("tokens, size", [(17, 8), (75, 64), (41, 40), (33, 17), (2, 64)], ids=lambda n: str(n))
def test_attention_is_as_near_to_float32_as_the_type_allows(tokens: int, size: int, tmp_path: Path) -> None:
    """Channels, columns and rows that fill whole tiles and that do not, and too few of them for tiles."""
    model, feeds = _attention(tokens, size)
    want = execute(model, feeds)
    ConvertFloat(to="bfloat16").run(model, Context())
    rounded = execute(model, feeds)
    compile_model(model, resolve("host"), tmp_path)
    for name, got in CompiledModel(tmp_path / "model.so")(**feeds).items():
        error = np.abs(rounded[name] - want[name]).max()
        assert 0 < np.abs(got - want[name]).max() < 2 * error < 0.04 * np.abs(want[name]).max()


def test_tile_registers_multiply_both_products_without_a_transposition() -> None:
    target = resolve("host")
    if "amx-bf16" not in target.features:
        pytest.skip("this CPU has no AMX-BF16")
    model, _ = _attention(49, 40)
    ConvertFloat(to="bfloat16").run(model, Context())
    program, _ = lower(prepared(model), target)
    assert not [call.kernel for call in program.calls if "transpose" in str(call.kernel)]
    products = {name: kernel for name, kernel in program.kernels.items() if "product" in name}
    assert len(products) == 2
    for name, kernel in products.items():
        assert "tdpbf16ps" in assembly(build_parts({name: kernel}, "", target)[0])
    assert [type(work).__name__ for work in program.configs] == ["Bfloat16MatrixProduct"] * 2


AMX = {"amx-tile", "amx-int8", "amx-bf16"}


def _with_avx512_bf16() -> Target:
    """The host as a machine that has AVX512-BF16 and no AMX."""
    found = resolve("host")
    features = (found.features - AMX) | {"avx512bf16"}
    attributes = [name for name in found.llvm["mattr"] if name[1:] not in AMX]  # type: ignore[attr-defined]
    return replace(found, features=features, llvm={**found.llvm, "mattr": [*attributes, "+avx512bf16"]})


def _needs(*flags: str) -> None:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if not set(flags) <= set(text.split()):
        pytest.skip(f"this CPU has no {flags}")


@pytest.mark.parametrize(
    "flags, granted, found",
    [
        ("avx512f avx512_bf16", False, {"bfloat16", "avx512bf16"}),  # AMD
        ("avx512f avx512_bf16 amx_tile amx_bf16", True, {"bfloat16", "amx-bf16"}),
        ("avx512f avx512_bf16 amx_tile amx_bf16", False, set()),  # its AVX512-BF16 is slower than float32
        ("avx512f", False, set()),
    ],
)
def test_bfloat16_is_offered_where_it_is_fast(
    flags: str, granted: bool, found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("features of x86-64")
    monkeypatch.setattr(host, "_flags", lambda: frozenset(flags.split()))
    monkeypatch.setattr(host, "_tiles_granted", lambda: granted)
    assert host.resolve(None).features & {"bfloat16", "avx512bf16", "amx-bf16"} == found


NETWORK = """
<ir_version: 10, opset_import: ["" : 22]>
main (float[1,16,9,11] x) => (float[1,24,9,11] y, float[1,40] z)
   <float[32,16,3,3] u = seeded(0), float[32] b = seeded(1), float[24,32,1,1] v = seeded(2),
    float[2376,40] w = seeded(3), int64[2] s = {1, 2376}>
{
   c = Conv <pads = [1,1,1,1]> (x, u, b)
   r = Relu (c)
   y = Conv (r, v)
   f = Reshape (y, s)
   z = MatMul (f, w)
}"""


@pytest.mark.parametrize("tokens, size", [(41, 40), (33, 17)], ids=lambda n: str(n))
def test_vectors_of_pairs_multiply_where_there_are_no_tiles(tokens: int, size: int, tmp_path: Path) -> None:
    """Attention, odd numbers of channels among it, and a network with constant weights."""
    _needs("avx512_bf16", "avx512_vnni")
    target = _with_avx512_bf16()
    for model, feeds in (_attention(tokens, size), (parse_model(NETWORK), {})):
        feeds = feeds or {"x": np.random.default_rng(0).normal(size=(1, 16, 9, 11)).astype(np.float32)}
        want = execute(model, feeds)
        ConvertFloat(to="bfloat16").run(model, Context())
        rounded = execute(model, feeds)
        program, _ = lower(prepared(model), target)
        text = assembly(build_parts(program.kernels, "", target)[0])
        assert "vdpbf16ps" in text and "tdpbf16ps" not in text and "planish_" not in text
        assert "tiles" not in program.requires
        compile_model(model, target, tmp_path)
        for name, got in CompiledModel(tmp_path / "model.so")(**feeds).items():
            error = np.abs(rounded[name] - want[name]).max()
            assert 0 < np.abs(got - want[name]).max() < 2 * error < 0.04 * np.abs(want[name]).max()


@pytest.mark.parametrize("threads", [1, 2])
def test_every_config_computes_the_same_bits(threads: int, tmp_path: Path) -> None:
    model, feeds = _attention(49, 40)
    ConvertFloat(to="bfloat16").run(model, Context())
    target = replace(resolve("host"), threads=threads)
    chosen = lower(prepared(model), target)[0].configs
    found = []
    for i in (0, -1):
        compile_model(model, target, tmp_path / str(i), configs={work: space(work)[i] for work in chosen})
        found.append(CompiledModel(tmp_path / str(i) / "model.so")(**feeds))
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])

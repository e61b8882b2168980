"""bfloat16 on CPUs: as float32 operators between roundings in ONNX Runtime, and compiled."""

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from planish.backends.tvm import parallel
from planish.backends.tvm.compile import compile_model, prepared
from planish.backends.tvm.kernels import assembly, build_parts
from planish.backends.tvm.load import CompiledModel
from planish.backends.tvm.lower import lower
from planish.driver import Options, preparation
from planish.errors import UsageError
from planish.ir.bfloat16 import in_float32, uses_bfloat16
from planish.ir.execute import execute
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.quantize.convert_float import ConvertFloat
from planish.targets.registry import resolve

NETWORK = """<ir_version: 10, opset_import: ["" : 22]>
main (float[1,3,18,34] x) => (float[1,37] y)
   <float[32,3,3,3] u = seeded(0), float[24,32,3,3] v = seeded(1), float[24] b = seeded(2),
    float[24,24,1,1] w = seeded(3), float[24,1,3,3] d = seeded(4), float[64,24,5,3] s = seeded(5),
    float[40,64,1,1] t = seeded(6), float[40,37] m = seeded(7)>
{
   c = Conv <pads = [1,1,1,1]> (x, u)
   r = Relu (c)
   e = Conv <pads = [1,1,1,1], strides = [2,2]> (r, v, b)
   f = Conv (e, w)
   g = Add (f, e)
   h = Relu (g)
   i = Conv <pads = [1,1,1,1], group = 24> (h, d)
   j = Conv <pads = [2,2,2,2], dilations = [1,2]> (i, s)
   k = Relu (j)
   l = Conv (k, t)
   n = GlobalAveragePool (l)
   o = Flatten (n)
   y = MatMul (o, m)
}"""


def test_every_result_is_rounded_to_bfloat16() -> None:
    model = parse_model(
        '<ir_version: 10, opset_import: ["" : 22]> main (float[4] x, float[4] w) => (float[4] y, float[4] s) '
        "{ y = Mul (x, w)  s = Add (y, x) }"
    )
    ConvertFloat(to="bfloat16").run(model, Context())
    assert uses_bfloat16(model)
    x, w = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)

    def rounded(a: np.ndarray) -> np.ndarray:
        return a.astype(ml_dtypes.bfloat16).astype(np.float32)

    product = rounded(rounded(x) * rounded(w))
    found = execute(model, {"x": x, "w": w})
    np.testing.assert_array_equal(found["y"], product)
    np.testing.assert_array_equal(found["s"], rounded(product + rounded(x)))
    assert not uses_bfloat16(in_float32(model))
    assert {v.dtype for node in model.graph for v in node.outputs} == {ir.DataType.BFLOAT16, ir.DataType.FLOAT}


@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_bfloat16_is_as_near_to_float32_as_the_type_allows(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = parse_model(NETWORK)
    x = np.random.default_rng(0).normal(size=(1, 3, 18, 34)).astype(np.float32)
    want = execute(model, {"x": x})["y"]
    ConvertFloat(to="bfloat16").run(model, Context())
    rounded = execute(model, {"x": x})["y"]
    monkeypatch.setattr(parallel, "pays", lambda *_: True)
    monkeypatch.setattr(parallel, "SMALLEST", 64)
    compile_model(model, replace(resolve("host"), threads=threads), tmp_path)
    got = CompiledModel(tmp_path / "model.so")(x=x)["y"]
    error = np.abs(rounded - want).max()  # of the same network rounded behind every operator
    assert 0 < np.abs(got - want).max() < 2 * error < 0.05 * np.abs(want).max()


def test_tile_registers_multiply_bfloat16_where_the_machine_has_them() -> None:
    target = resolve("host")
    if "amx-bf16" not in target.features:
        pytest.skip("this CPU has no AMX-BF16")
    model = parse_model(NETWORK)
    ConvertFloat(to="bfloat16").run(model, Context())
    kinds = {}
    for features in (target.features, target.features - {"amx-bf16"}):
        program, _ = lower(prepared(model), replace(target, features=features))
        text = assembly(build_parts(program.kernels, "", target)[0])
        kinds["amx-bf16" in features] = ("tdpbf16ps" in text, "tiles" in program.requires)
    assert kinds == {True: (True, True), False: (False, False)}


def test_filters_that_fill_no_vector_are_cut_behind_the_kernel_that_sums() -> None:
    model = parse_model("""<ir_version: 10, opset_import: ["" : 18]>
    main (float[1,16,8,8] x) => (float[1,18,8,8] y)
       <float[18,16,3,3] w = seeded(0), float[18] b = seeded(1)>
    {
       c = Conv <pads = [1,1,1,1]> (x, w, b)
       y = Relu (c)
    }""")
    ConvertFloat(to="bfloat16").run(model, Context())
    program, _ = lower(prepared(model), resolve("host"))
    assert any("slice" in name for name in program.kernels)
    assert not any("conv2d" in name and "slice" in name for name in program.kernels), "it would lose its template"


def test_a_precision_that_a_target_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="no fast code in bfloat16") as refusal:
        preparation.manager(Options(precision="bfloat16"), resolve("arm64/neoverse-n1"))
    assert "AMX-BF16" in str(refusal.value)
    names = [type(p).__name__ for p in preparation.manager(Options(precision="bfloat16"), resolve("cuda")).passes]
    assert "ConvertFloat" in names and "Quantize" not in names


def test_a_kernel_whose_bfloat16_stays_inside_is_compiled(tmp_path: Path) -> None:
    """LLVM's type for such numbers crashes TVM; and its test for what is not a number has none."""
    model = parse_model(
        '<ir_version: 10, opset_import: ["" : 22]> main (float[4,8] x) => (float[4,8] y, bool[4,8] z) '
        "{ a = Mul (x, x)  y = Sqrt (a)  z = IsNaN (y) }"
    )
    ConvertFloat(to="bfloat16").run(model, Context())
    x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    x[1, 2] = np.nan
    compile_model(model, resolve("host"), tmp_path)
    got = CompiledModel(tmp_path / "model.so")(x=x)
    np.testing.assert_allclose(got["y"], np.abs(x), rtol=2**-7)
    np.testing.assert_array_equal(got["z"], np.isnan(x))

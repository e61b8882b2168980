"""Hexagon code runs without a DSP: whole models and every kind of kernel under qemu-hexagon, equal to the bit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import planish
import pytest
from planish.backends.batch import fix_batch
from planish.backends.hexagon.compile import compile_model
from planish.backends.hexagon.emulate import Runner, unavailable
from planish.backends.hexagon.kernel import HEXAGON
from planish.backends.tvm import kernels
from planish.backends.tvm.compile import prepared
from planish.backends.tvm.lower import lower
from planish.ir.reference import run
from planish.ir.text import parse_model
from planish.passes.defaults import exact
from planish.passes.registry import parse
from planish.targets.registry import resolve

ROOT = Path(__file__).parents[2]
MODELS = ROOT.parent / "shared" / "models"
V66 = resolve("hexagon/v66")
pytest.importorskip("ziglang", reason="the arm64 extra links the artifact")

Arrays = dict[str, np.ndarray]


def _needs_emulator() -> None:
    if reason := unavailable(V66):
        pytest.skip(reason)


def _feeds(model: ir.Model, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        str(v.name): rng.normal(0.3, 0.7, [d if isinstance(d, int) else 1 for d in v.shape or ()]).astype(np.float32)
        for v in model.graph.inputs
    }


def _compiled_equals_reference(model: ir.Model, directory: Path) -> None:
    static, _ = fix_batch(model)
    compile_model(static, V66, directory)
    runner = Runner(directory, V66)
    for seed in range(2):
        feeds = _feeds(static, seed)
        want = run(static, feeds)
        got, counts = runner(feeds, want)
        assert 0 < counts.vector < counts.instructions
        assert counts.packets < counts.instructions
        for name, array in want.items():
            assert len(np.unique(array)) > 2
            np.testing.assert_array_equal(got[name], array)


def test_a_whole_model_equals_the_reference(tmp_path: Path) -> None:
    _needs_emulator()
    keywords = MODELS / "kws_dscnn" / "model.onnx"  # depthwise too; `planish.tools.bench.hexagon` runs the larger ones
    path = keywords if keywords.exists() else ROOT / "examples" / "digits.onnx"
    signature = planish.capture(path)
    samples = {key: np.concatenate([array, -array]) for key, array in _feeds(signature).items()}
    np.savez(tmp_path / "samples.npz", **samples)
    passes = [*exact(), *parse("activation-ranges,quantize,remove-unused")]
    out = tmp_path / "out"
    planish.optimize(path, target="hexagon", output=out, passes=passes, data=tmp_path / "samples.npz", compile=False)
    _compiled_equals_reference(planish.capture(out / "model.onnx"), tmp_path / "build")


# Filters that fill vectors and that do not, strides, int8 and uint8, a clipped result, a table, pooling, a sum.
KERNELS = """
<ir_version: 10, opset_import: ["" : 20]>
main (float[1,16,9,8] x) => (float[1,12] y, float[1,32,5,4] u)
  <int8[32,16,3,3] w1 = seeded(1), int8[24,32,1,1] w2 = seeded(2), int8[32,1,3,3] w3 = seeded(3),
   int8[24,1,5,5] w4 = seeded(4), int8[24,12] w5 = seeded(5), int32[32] b1 = seeded(6),
   float s = {0.05}, uint8 z = {120}, int8 a = {-3}, float t = {0.01}, int8 o = {0}, float r = {0.3}, float e = {0.003},
   float f = {0.0005}, int64[2] axes = {2,3}>
{
  xq = QuantizeLinear (x, s, a)
  xd = DequantizeLinear (xq, s, a)
  d1 = DequantizeLinear (w1, t, o)
  d2 = DequantizeLinear (w2, t, o)
  d3 = DequantizeLinear (w3, t, o)
  d4 = DequantizeLinear (w4, t, o)
  d5 = DequantizeLinear (w5, t, o)
  db = DequantizeLinear (b1, f)
  c1 = Conv <strides = [2,2], pads = [1,1,1,1]> (xd, d1, db)
  r1 = Relu (c1)
  q1 = QuantizeLinear (r1, r, o)
  v1 = DequantizeLinear (q1, r, o)
  c3 = Conv <group = 32, pads = [1,1,1,1]> (v1, d3)
  q3 = QuantizeLinear (c3, r, z)
  v3 = DequantizeLinear (q3, r, z)
  h = Add (v3, v1)
  hq = QuantizeLinear (h, r, z)
  u = DequantizeLinear (hq, r, z)
  c2 = Conv (u, d2)
  q2 = QuantizeLinear (c2, r, z)
  v2 = DequantizeLinear (q2, r, z)
  c4 = Conv <group = 24, strides = [2,1], pads = [2,2,2,2]> (v2, d4)
  q4 = QuantizeLinear (c4, r, z)
  v4 = DequantizeLinear (q4, r, z)
  p = MaxPool <kernel_shape = [2,2]> (v4)
  pq = QuantizeLinear (p, r, z)
  pd = DequantizeLinear (pq, r, z)
  g = ReduceMean <keepdims = 0> (pd, axes)
  gq = QuantizeLinear (g, e, z)
  gd = DequantizeLinear (gq, e, z)
  m = HardSwish (gd)
  mq = QuantizeLinear (m, e, z)
  md = DequantizeLinear (mq, e, z)
  y = MatMul (md, d5)
}
"""


def test_every_kind_of_kernel_equals_the_reference(tmp_path: Path) -> None:
    _needs_emulator()
    _compiled_equals_reference(parse_model(KERNELS), tmp_path)


def test_every_product_is_vrmpy_and_nothing_is_called_but_copies() -> None:
    static, _ = fix_batch(parse_model(KERNELS))
    program, placement = lower(prepared(static), V66, None, HEXAGON)
    assert {place.where for place in placement if place.op in ("Conv", "MatMul")} == {"conv", "dense"}
    text = kernels.assembly(kernels.build(program.kernels, "k_", V66)[0])
    functions = dict(re.findall(r"^(k_\w+):$(.*?)^\s*\.size\s+\1", text, re.M | re.S))
    assert set(functions) == {f"k_{name}" for name in program.kernels}
    products = [name for name in functions if name.startswith(("k_conv", "k_dense"))]
    assert len(products) == 5
    for name in products:
        assert re.search(r"vrmpy\(v\d+\.ub,v\d+\.b\)", functions[name]), name
        assert "sfmpy" not in functions[name] or name.startswith("k_dense"), (
            "only the float result is computed in float"
        )
    called = set(re.findall(r"\bcall ##?([A-Za-z_]\w*)|\bcall ([A-Za-z_]\w*)", text))
    assert {name for pair in called for name in pair if name} <= {"memcpy", "memset"}


ROUNDING = """
<ir_version: 10, opset_import: ["" : 20]>
main (float[1,COUNT] x, float[1,COUNT] y) => (float[1,COUNT] p1, float[1,COUNT] p2)
  <float s = {1.0}, int8 o = {0}, float r1 = {2.0}, float r2 = {129.0000152587890625}>
{
  xq = QuantizeLinear (x, s, o)
  yq = QuantizeLinear (y, s, o)
  xd = DequantizeLinear (xq, s, o)
  yd = DequantizeLinear (yq, s, o)
  m = Mul (xd, yd)
  q1 = QuantizeLinear (m, r1, o)
  p1 = DequantizeLinear (q1, r1, o)
  q2 = QuantizeLinear (m, r2, o)
  p2 = DequantizeLinear (q2, r2, o)
}
"""


def test_float32_in_integer_vectors_rounds_as_float32(tmp_path: Path) -> None:
    """Products of two bytes: ties, results next to them, and both ends of the range."""
    _needs_emulator()
    x, y = (g.reshape(1, -1).astype(np.float32) for g in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128, 8) + 3))
    model = parse_model(ROUNDING.replace("COUNT", str(x.size)))
    compile_model(model, V66, tmp_path)
    want = run(model, {"x": x, "y": y})
    got, _ = Runner(tmp_path, V66)({"x": x, "y": y}, want)
    assert (np.abs(x * y / np.float32(2.0)) % 1 == 0.5).any(), "there are ties"
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array)


def test_the_report_says_what_was_counted_and_what_was_not_executed(tmp_path: Path) -> None:
    _needs_emulator()
    (tmp_path / "model.onnxtxt").write_text(ROUNDING.replace("COUNT", "64"))
    for version, said in (("v66", "counted by qemu-hexagon"), ("v68", "compiled, not executed")):
        out = tmp_path / version
        planish.optimize(tmp_path / "model.onnxtxt", target=f"hexagon/{version}", output=out, level=0)
        notes = json.loads((out / "report.json").read_text())["compiled"]["notes"]
        assert any(said in note for note in notes), notes
        assert (out / "model.so").read_bytes()[18:20] == b"\xa4\x00", "an ELF file for Hexagon"

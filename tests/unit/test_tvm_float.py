"""Float feature maps: channels-last through Clip, which clips as ONNX Runtime does, with one bound or both."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from planish.backends.tvm.compile import compile_model
from planish.backends.tvm.load import CompiledModel
from planish.backends.tvm.lower import lower
from planish.ir.execute import execute
from planish.ir.shapes import infer
from planish.ir.text import parse_model
from planish.targets.registry import resolve

CLIPPED = """
<ir_version: 10, opset_import: ["" : 18]>
main (float[1,8,6,6] x) => (float[1,16,6,6] y)
  <float[16,8,3,3] v = seeded(0), float[16,16,3,3] w = seeded(1), float low = {-0.2}, float high = {0.3}>
{
  a = Conv <pads = [1,1,1,1]> (x, v)
  b = Clip (a, BOUNDS)
  c = Conv <pads = [1,1,1,1]> (b, w)
  d = Clip (c, BOUNDS)
  y = Conv <pads = [1,1,1,1]> (d, w)
}
"""


@pytest.mark.parametrize("bounds", ["low, high", "low", ", high"])
def test_clip_leaves_convolutions_channels_last(bounds: str, tmp_path: Path) -> None:
    model: ir.Model = parse_model(CLIPPED.replace("BOUNDS", bounds))
    infer(model)
    target = resolve("host")
    called = [str(call.kernel) for call in lower(model, target)[0].calls]
    assert sum("conv2d" in name for name in called) == 3
    assert sum("transpose" in name for name in called) <= 2, "one change of layout on each side"
    compile_model(model, target, tmp_path)
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 8, 6, 6)).astype(np.float32)}
    want = execute(model, feeds)["y"]
    np.testing.assert_allclose(
        CompiledModel(tmp_path / "model.so")(**feeds)["y"], want, rtol=0, atol=1e-4 * abs(want).max()
    )


def test_a_transposed_convolution_among_others(tmp_path: Path) -> None:
    """TVM turns all of them channels-last together and has no kernel for this one."""
    model = parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    main (float[1,16,8,8] x) => (float[1,8,16,16] y) <float[16,16,3,3] v = seeded(0), float[16,8,2,2] w = seeded(1)>
    {
      a = Conv <pads = [1,1,1,1]> (x, v)
      b = Gelu (a)
      y = ConvTranspose <strides = [2,2]> (b, w)
    }""")
    compile_model(model, resolve("host"), tmp_path)
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 16, 8, 8)).astype(np.float32)}
    want = execute(model, feeds)["y"]
    np.testing.assert_allclose(
        CompiledModel(tmp_path / "model.so")(**feeds)["y"], want, rtol=0, atol=1e-5 * abs(want).max()
    )


@pytest.mark.parametrize("filters", [67, 18])
def test_results_that_no_vector_divides_get_whole_ones_and_are_cut(filters: int, tmp_path: Path) -> None:
    model = parse_model(
        """
    <ir_version: 10, opset_import: ["" : 18]>
    main (float[1,16,7,6] x) => (float[1,131] y, float[1,6,7,77] z)
       <float[COUNT,16,3,3] u = seeded(0), float[COUNT] b = seeded(1), float[131,COUNT] v = seeded(2),
        float[131] c = seeded(3), float[COUNT,77] w = seeded(4)>
    {
      e = Conv <pads = [1,1,1,1]> (x, u, b)
      f = Relu (e)
      g = GlobalAveragePool (f)
      h = Flatten (g)
      i = Gemm <transB = 1> (h, v, c)
      y = Tanh (i)
      j = Transpose <perm = [0,3,2,1]> (f)
      z = MatMul (j, w)
    }""".replace("COUNT", str(filters))
    )
    target = resolve("host")
    infer(model)
    called = [str(call.kernel) for call in lower(model, target)[0].calls]
    assert sum("strided_slice" in name for name in called) == 3
    assert not any("conv2d" in name and "slice" in name for name in called), "kernels with templates sum only"
    compile_model(model, target, tmp_path)
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 16, 7, 6)).astype(np.float32)}
    got = CompiledModel(tmp_path / "model.so")(**feeds)
    for name, want in execute(model, feeds).items():
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-5 * abs(want).max())

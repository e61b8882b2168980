"""bfloat16 in ONNX Runtime on a CPU: float32 operators between roundings."""

import ml_dtypes
import numpy as np
import onnx_ir as ir
from planish.ir.bfloat16 import in_float32, uses_bfloat16
from planish.ir.execute import execute
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.quantize.convert_float import ConvertFloat


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

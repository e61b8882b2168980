"""Models of one integer layer, for the tests of what lowers, builds and tunes it."""

import onnx_ir as ir
from planish.ir.shapes import infer
from planish.ir.text import parse_model

__all__ = ["conv", "layer", "matmul"]

_LAYER = """
<ir_version: 10, opset_import: ["" : 20]>
main (float[{given}] x) => (float[{left}] y)
  <int8[{weights}] w = seeded({seed}), float s = {{0.05}}, {activation} z = {{3}}, float t = {{0.01}},
   int8 o = {{0}}, float r = {{0.3}}>
{{
  xq = QuantizeLinear (x, s, z)
  xd = DequantizeLinear (xq, s, z)
  wd = DequantizeLinear (w, t, o)
  c = {operator} (xd, wd)
  cq = QuantizeLinear (c, r, z)
  y = DequantizeLinear (cq, r, z)
}}
"""


def conv(filters: int = 24, size: str = "6,12", activation: str = "int8") -> ir.Model:
    """Conv 3×3 of 16 channels, padded by one."""
    return layer(
        operator="Conv <pads = [1,1,1,1]>",
        given=f"1,16,{size}",
        left=f"1,{filters},{size}",
        weights=f"{filters},16,3,3",
        activation=activation,
    )


def matmul(rows: int, seed: int = 0) -> ir.Model:
    """MatMul rows×32 · 32×64."""
    return layer(
        operator="MatMul", given=f"{rows},32", left=f"{rows},64", weights="32,64", activation="uint8", seed=seed
    )


def layer(seed: int = 0, **parts: str) -> ir.Model:
    """The layer of an operator between Q and DQ; parts: shapes and types as the text has them."""
    model: ir.Model = parse_model(_LAYER.format(seed=seed, **parts))
    infer(model)
    return model

"""16-bit activations, constants as operands and products of two activations: only where the target has them."""

import numpy as np
import onnx_ir as ir
import pytest
from planish.errors import UsageError
from planish.ir import metadata
from planish.ir.execute import execute
from planish.ir.integer import OPTIONAL_KINDS, Arithmetic, FloatNode, plan
from planish.ir.integer.steps import KINDS
from planish.ir.shapes import infer
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.targets.registry import resolve

TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
main (float[1,4,9,9] x) => (float[1,4,18,18] y)
   <float[4,4,3,3] w = seeded(1), float[4,4,2,2] u = seeded(2), float[4] b = seeded(3), float[4,1,1] k = seeded(4)>
{ c = Conv <pads = [1,1,1,1]> (x, w, b)  r = Relu (c)  m = Mul (r, k)  y = ConvTranspose <strides = [2,2]> (m, u, b) }
"""


def _quantized(passes: str, target: str = "ethos-u55-128") -> tuple[ir.Model, ir.Model, list[dict[str, np.ndarray]]]:
    model = parse_model(TEXT)
    infer(model)
    rng = np.random.default_rng(0)
    data = [{"x": rng.normal(size=(1, 4, 9, 9)).astype(np.float32)} for _ in range(4)]
    made = model.clone()
    PassManager(f"activation-ranges,{passes}").run(made, Context(target=resolve(target), data=data))
    return model, made, data


def _noise(model: ir.Model, made: ir.Model, feeds: dict[str, np.ndarray]) -> float:
    exact, found = execute(model, feeds)["y"], execute(made, feeds)["y"]
    return float(np.square(found - exact).sum() / np.square(exact).sum())


def test_a_target_without_such_kernels_refuses() -> None:
    with pytest.raises(UsageError, match="no kernels for 16-bit activations"):
        _quantized("quantize{activations=int16}", "arm64")


def test_the_levels_are_symmetric_and_far_nearer() -> None:
    model, narrow, data = _quantized("quantize{activations=int8}")
    _, wide, _ = _quantized("quantize{activations=int16}")
    zeros = [v.const_value.numpy() for name, v in wide.graph.initializers.items() if name.endswith("zero_point")]
    assert {z.dtype.name for z in zeros} == {"int16", "int8"} and not any(z.any() for z in zeros)
    assert wide.graph.opset_imports[""] >= 21
    # what is left is the rounding of the weights
    assert _noise(model, wide, data[0]) < 0.5 * _noise(model, narrow, data[0])


def test_what_was_chosen_for_the_model_is_what_quantize_makes() -> None:
    _, made, _ = _quantized("widen-activations{pictures=80}")
    assert metadata.get(made, metadata.ACTIVATIONS) is None  # the rounded weights alone miss 80 dB
    _, made, _ = _quantized("widen-activations{pictures=40 decisions=40},quantize")
    assert metadata.get(made, metadata.ACTIVATIONS) == "INT16"
    assert made.graph.initializers["x_zero_point"].dtype == ir.DataType.INT16


def test_constants_and_transposed_convolutions_are_integer_where_the_target_says_so() -> None:
    feed = np.random.default_rng(0).normal(size=(1, 4, 9, 9)).astype(np.float32)

    def floats(target: str) -> list[str]:
        context = Context(target=resolve(target), data=[{"x": feed}])
        model = parse_model(TEXT)
        infer(model)
        PassManager("activation-ranges,quantize").run(model, context)
        return [skip.op for skip in context.record.skips]

    assert floats("ethos-u65-512") == []
    assert set(floats("arm64")) >= {"Mul", "ConvTranspose"}


def test_an_executor_gets_only_the_kinds_it_has() -> None:
    _, made, _ = _quantized("quantize")
    infer(made)
    whole = plan(made, Arithmetic(frozenset(KINDS) | frozenset(OPTIONAL_KINDS), limit=2**39 - 1, bits=16))
    assert not [step for step in whole if isinstance(step, FloatNode)]
    assert "conv_transpose" in {step.kind for step in whole}  # type: ignore[union-attr]
    (left,) = [step for step in plan(made) if isinstance(step, FloatNode)]
    assert left.node.op_type == "ConvTranspose" and left.reason == "ConvTranspose has no integer form"


def test_a_product_of_two_activations() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    main (float[1,4,6] x) => (float[1,4,4] y) <float[6,6] w = seeded(1), float[6,6] v = seeded(2)>
    { a = MatMul (x, w)  b = MatMul (x, v)  t = Transpose <perm = [0,2,1]> (b)  y = MatMul (a, t) }
    """
    data = [{"x": np.random.default_rng(0).normal(size=(1, 4, 6)).astype(np.float32)}]
    for target, changed in (("ethos-u85-256", 4), ("arm64", 4), ("hexagon/v66", 2)):
        model = parse_model(text)
        infer(model)
        context = Context(target=resolve(target), data=data)
        PassManager("activation-ranges,quantize").run(model, context)
        assert context.record.changed == changed

"""Models with something awkward in them: handled by the passes of quantization, or left with the reason."""

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir.execute import execute
from planish.ir.fidelity import sqnr
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import Outcome, PassManager
from planish.targets.registry import resolve

INT8 = "synthesize-inputs,activation-ranges,keep-float,quantize"


def net(body: str, weights: str, opset: int = 18) -> ir.Model:
    header = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    return parse_model(f"{header}\nmain (float[N,3,16,16] x) => (float[N,M] y)\n<{weights}>\n{{\n{body}\n}}")


def plain(opset: int = 18) -> ir.Model:
    body = "c = Conv <pads = [1,1,1,1]> (x, w, b)\nr = Relu (c)\np = GlobalAveragePool (r)\nf = Flatten (p)\n"
    weights = "float[8,3,3,3] w = seeded(0), float[8] b = seeded(1), float[8,8] v = seeded(2)"
    return net(body + "y = Gemm (f, v)", weights, opset)


def run(model: ir.Model, passes: str, **context: object) -> Outcome:
    return PassManager(passes).run(model, Context(target=resolve("arm64"), **context))  # type: ignore[arg-type]


def picture() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(3).uniform(0, 1, (2, 3, 16, 16)).astype(np.float32)}


def scale_weights(model: ir.Model, name: str, factor: float) -> None:
    value = model.graph.initializers[name]
    value.const_value = ir.Tensor((value.const_value.numpy().astype(np.float64) * factor).astype(np.float32), name=name)


@pytest.mark.parametrize("opset", [13, 18])
def test_four_bits_raise_the_opset_and_keep_the_numbers(opset: int) -> None:
    model = plain(opset)
    run(model, "synthesize-inputs,activation-ranges,quantize{weights=int4 clipping=mse}")
    before = execute(model.clone(), picture())["y"]
    run(model, "pack-weights")
    assert model.opset_imports[""] >= 21 and model.ir_version >= 10
    assert any(v.dtype == ir.DataType.INT4 for v in model.graph.initializers.values())
    np.testing.assert_allclose(execute(model, picture())["y"], before, rtol=1e-5, atol=1e-6)


def test_weights_below_the_smallest_normal_number_round_to_finite_results() -> None:
    model = plain()
    scale_weights(model, "w", 1e-42)
    reference = execute(model.clone(), picture())["y"]
    run(model, INT8)
    result = execute(model, picture())["y"]
    assert np.isfinite(result).all() and sqnr(reference, result) > 30


def test_values_too_small_for_a_scale_stay_float_with_the_reason() -> None:
    model = plain()
    scale_weights(model, "w", 1e-40)
    scale_weights(model, "b", 1e-40)
    outcome = run(model, "activation-ranges", data=[picture()])
    reasons = {s.site: s.reason for s in outcome.records[-1].skips}
    assert reasons["c"] == "the observed range is too small for a scale in float32"


def test_a_model_that_gives_nan_on_every_input_is_left_float() -> None:
    model = plain()
    scale_weights(model, "b", np.inf)
    outcome = run(model, INT8 + ",predict-fidelity")
    assert "bias holds NaN or infinity" in {s.reason for s in outcome.records[3].skips}


def test_rounding_is_predicted_for_weights_that_two_layers_share() -> None:
    body = "c = Conv <pads = [1,1,1,1]> (x, w)\nr = Relu (c)\nd = Conv <pads = [1,1,1,1]> (r, w)\n"
    model = net(body + "p = GlobalAveragePool (d)\ny = Flatten (p)", "float[3,3,3,3] w = seeded(0)")
    for number, node in enumerate(model.graph):
        node.name = f"n{number}"
    outcome = run(model, INT8 + ",predict-fidelity")
    layers = outcome.records[-1].measures["prediction"]["layers"]
    assert {layer["layer"] for layer in layers} >= {"n0", "n2"}


def test_mixed_precision_leaves_shared_and_quantized_weights_alone() -> None:
    model = plain()
    run(model, INT8)
    again = run(model, 'synthesize-inputs,activation-ranges,mix-precision{budget="size=100B"}')
    assert again.records[-1].changed == 0

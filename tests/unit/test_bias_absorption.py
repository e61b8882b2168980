"""Moving a bias through a ReLU and dropping a bound: what they change is what the moments say."""

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir.execute import execute
from planish.ir.statistics import Moments
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.quantize.absorb_bias import absorbed
from planish.passes.quantize.relax_relu6 import excess


def test_what_a_bound_cuts_off_is_what_sampling_finds() -> None:
    rng = np.random.default_rng(0)
    mean, std = np.array([1.0, 4.0, 7.0]), np.array([2.0, 1.0, 3.0])
    z = rng.normal(mean, std, (400_000, 3))
    expected = np.maximum(z - 6, 0).sum() / np.maximum(z, 0).sum()
    assert excess(Moments(mean, std, mean, mean), 6.0) == pytest.approx(expected, rel=0.01)


def test_absorption_takes_three_deviations_below_the_mean_and_never_less_than_nothing() -> None:
    m = Moments(np.array([10.0, 1.0, np.nan]), np.array([2.0, 1.0, 1.0]), np.zeros(3), np.zeros(3))
    np.testing.assert_allclose(absorbed(m, 3.0), [4.0, 0.0, 0.0])


def network() -> ir.Model:
    model = parse_model(
        """<ir_version: 10, opset_import: ["" : 18]>
        main (float[N,3,8,8] x) => (float[N,2,8,8] y, float[N,4,8,8] z)
        <float[4,3,3,3] w = seeded(0), float[4] b = {1000, 0, 500, -3}, float[2,4,1,1] v = seeded(1),
         float[4,1,1,1] k = seeded(2), float[4] d = seeded(3)>
        {
            c = Conv <pads = [1,1,1,1]> (x, w, b)
            r = Relu (c)
            y = Conv (r, v)
            z = Conv <group = 4> (r, k, d)
        }"""
    )
    return model


def test_the_function_stays_where_the_channel_is_always_active() -> None:
    x = np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)
    model = network()
    before = execute(model, {"x": x})
    record = PassManager("absorb-bias").run(model, Context(data=[{"x": x}])).records[0]
    after = execute(model, {"x": x})
    assert record.changed == 1
    bias = next(n for n in model.graph if n.outputs[0].name == "c").inputs[2].const_value.numpy()
    assert bias[0] < 100 and bias[2] < 100 and bias[1] == 0 and bias[3] == -3
    for name in ("y", "z"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-4, atol=2e-3)


def test_without_evidence_nothing_moves() -> None:
    record = PassManager("absorb-bias").run(network(), Context()).records[0]
    assert record.changed == 0 and record.skipped == {"no statistics, and no inputs": 1}

"""What a layer weighs in the outputs, measured level by level."""

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir.channels import analyze
from planish.ir.text import parse_model
from planish.passes.prune.sensitivity import Sensitivity

NET = """<ir_version: 10, opset_import: ["" : 20]>
main (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[16,3,3,3] w = seeded(0), float[4,16,3,3] v = seeded(1)>
{ c = Conv <pads = [1,1,1,1]> (x, w)  r = Relu (c)  y = Conv <pads = [1,1,1,1]> (r, v) }"""
DEAD = 12


def test_units_that_leave_no_error_do_not_tell_what_the_others_weigh() -> None:
    model: ir.Model = parse_model(NET)
    weight = model.graph.initializers["w"]
    array = weight.const_value.numpy().copy()
    array[:DEAD] = 0
    weight.const_value = ir.Tensor(array, name="w")
    feeds = [{"x": np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)}]
    sensitivity = Sensitivity(model, feeds, {}, None)
    (group,) = (g for g in analyze(model).groups if len(g) == 16)
    order, levels = np.arange(16), np.arange(16)
    local = np.maximum(levels - DEAD, 0) ** 2 * 1e-4  # of another size than the outputs' error
    found = sensitivity.errors(group, order, levels, local)
    assert np.all(found[: DEAD + 1] < 1e-6)
    assert found[DEAD + 2] == pytest.approx(sensitivity(group, order[: DEAD + 2]), rel=1e-6)
    assert found[-1] > 0.1

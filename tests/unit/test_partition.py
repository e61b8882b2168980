"""Parts of a model for an accelerator and the CPU: few, in order, convex, each a model of its own."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from planish.backends.partition import partition, placements, submodel
from planish.ir.integer import IntegerOp, Step, plan
from planish.ir.reference import run
from planish.ir.shapes import infer
from planish.ir.text import parse_model

# two branches, so that an order exists in which the convolutions run together although the text alternates
MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
main (float[1,4,6,6] x) => (float[1,8,6,6] y)
  <int8[4,4,3,3] w = seeded(0), float s = {0.05}, uint8 z = {3}, float t = {0.01}, int8 o = {0}, float r = {0.3}>
{
  xq = QuantizeLinear (x, s, z)
  xd = DequantizeLinear (xq, s, z)
  wd = DequantizeLinear (w, t, o)
  a = Conv <pads = [1,1,1,1]> (xd, wd)
  aq = QuantizeLinear (a, r, z)
  ad = DequantizeLinear (aq, r, z)
  p = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (ad)
  pq = QuantizeLinear (p, r, z)
  pd = DequantizeLinear (pq, r, z)
  b = Conv <pads = [1,1,1,1]> (xd, wd)
  bq = QuantizeLinear (b, r, z)
  bd = DequantizeLinear (bq, r, z)
  c = Concat <axis = 1> (pd, bd)
  y = Sigmoid (c)
}
"""


def _model() -> ir.Model:
    model: ir.Model = parse_model(MODEL)
    infer(model)
    return model


def _only_convolutions(step: Step) -> str:
    return "" if isinstance(step, IntegerOp) and step.kind == "conv" else "no such unit"


def test_parts_are_few_and_read_only_what_is_there() -> None:
    model = _model()
    steps = plan(model)
    parts = partition(model, steps, _only_convolutions)
    assert [part.on_npu for part in parts] == [False, True, False]
    assert [step.kind for step in parts[1].steps if isinstance(step, IntegerOp)] == ["conv", "conv"]
    assert sum(len(part.steps) for part in parts) == len(steps)
    known = {"x"}
    for part in parts:
        assert set(part.inputs) <= known
        known |= set(part.outputs)
    assert parts[-1].outputs == ("y",)


def test_the_parts_one_after_the_other_compute_the_model() -> None:
    model = _model()
    values = {"x": np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(np.float32)}
    want = run(model, values)["y"]
    for part in partition(model, plan(model), _only_convolutions):
        own = submodel(model, part)
        assert [v.name for v in own.graph.inputs] == list(part.inputs)
        values |= run(own, {name: values[name] for name in part.inputs})
    np.testing.assert_array_equal(values["y"], want)


def test_steps_that_share_an_unnamed_value_stay_together() -> None:
    # the operand of the pool has another encoding: the plan requantizes it to integers that the graph never names
    text = MODEL.replace("float r = {0.3}", "float r = {0.3}, float q = {0.2}")
    text = text.replace("Linear (p, r, z)", "Linear (p, q, z)").replace("Linear (pq, r, z)", "Linear (pq, q, z)")
    model: ir.Model = parse_model(text)
    infer(model)
    steps = plan(model)
    named = {v.name for n in model.graph for v in n.outputs}
    hidden = {name for step in steps for name in step.outputs} - named
    assert hidden
    for kind in ("max_pool", "requantize", "concat"):
        for part in partition(model, steps, lambda step, kind=kind: "" if getattr(step, "kind", "") == kind else "no"):
            assert not hidden & {*part.inputs, *part.outputs}


def test_a_placement_says_why_a_node_is_not_on_the_npu() -> None:
    model = _model()
    shown = placements(partition(model, plan(model), _only_convolutions), _only_convolutions)
    assert {(place.op, place.where) for place in shown} >= {("Conv", "NPU"), ("MaxPool", "CPU"), ("Sigmoid", "CPU")}
    assert all(bool(place.reason) == (place.where == "CPU") for place in shown)

"""Class impressions: the tail they are drawn behind, how wide they are drawn, where leading takes them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from planish import optimize
from planish.ir import shapes
from planish.ir.execute import execute
from planish.ir.layers import Layer, layer_of
from planish.ir.text import parse_model
from planish.passes.prune.evidence import Moments
from planish.passes.synthesize.decisions import Tail, tail_of

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from planish.passes.replace.block_training import Job, train  # noqa: E402
from planish.passes.replace.trust import excitement, trusts  # noqa: E402
from planish.passes.synthesize.impressions import impressions, led, typical_spread  # noqa: E402

# a bottleneck that a 1×1 convolution, ReLU6 and averaging turn into the features of 20 classes
NET = """<ir_version: 10, opset_import: ["" : 20]>
main (float[N,3,6,6] x) => (float[N,{classes}] p)
   <float[8,3,3,3] a = seeded(0), float[32,8,{kernel},{kernel}] v = seeded(1), float[32] b = splat(-2),
    float low = splat(0), float high = splat(6), int64[2] axes = {{2, 3}}, float[{classes},32] w = seeded(2),
    float[{classes}] c = seeded(3)>
{{
   q = Conv (x, a)
   e = Conv (q, v, b)
   r = Clip (e, low, high)
   f = ReduceMean <keepdims = 0> (r, axes)
   z = Gemm <transB = 1> (f, w, c)
   p = Softmax (z)
}}"""


def network(kernel: int = 1, classes: int = 20) -> tuple[ir.Model, Layer]:
    model = parse_model(NET.format(kernel=kernel, classes=classes))
    shapes.infer(model)
    layer = next(found for node in model.graph if node.op_type == "Gemm" and (found := layer_of(node)))
    return model, layer


def tail(kernel: int = 1) -> Tail:
    found = tail_of(network(kernel)[1])
    assert isinstance(found, Tail)
    return found


def test_the_tail_begins_where_the_layer_before_the_scores_reads() -> None:
    assert [node.op_type for node in tail().nodes] == ["Conv", "Clip", "ReduceMean", "Gemm"]
    assert (tail().entry.name, tail().shape, tail().positionwise) == ("q", (8, 4, 4), True)
    assert not tail(3).positionwise  # a 3×3 kernel needs its neighbours


def test_layers_whose_results_are_no_scores_have_no_tail() -> None:
    model, _ = network()
    inner = layer_of(next(node for node in model.graph if node.outputs[0].name == "e"))
    assert inner is not None
    assert tail_of(inner) == "its result is no vector of scores"


def test_two_values_before_the_scores_leave_no_tail() -> None:
    model = parse_model("""<ir_version: 10, opset_import: ["" : 20]>
    main (float[N,4] x) => (float[N,5] y) <float[4,4] a = seeded(0), float[4,5] w = seeded(1)>
    { h = MatMul (x, a)  s = Add (x, h)  y = MatMul (s, w) }""")
    shapes.infer(model)
    layer = layer_of(model.graph[-1])
    assert layer is not None and "more than one value" in str(tail_of(layer))


def test_the_typical_spread_makes_means_as_large_as_deviations() -> None:
    rng = np.random.default_rng(0)
    bias, shift, std = rng.normal(size=9), 0.1 * rng.normal(size=9), rng.uniform(1.0, 2.0, 9)
    s = typical_spread(bias, shift, std)
    assert np.linalg.norm(bias + s * shift) == pytest.approx(s * np.linalg.norm(std))
    assert typical_spread(bias, 0.0 * shift, std) == pytest.approx(np.linalg.norm(bias) / np.linalg.norm(std))
    assert typical_spread(0.0 * bias, 0.0 * shift, std) == 1.0  # no bias tells anything


def test_leading_raises_the_wanted_class_along_its_row() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((5, 12), generator=generator)
    start = torch.randn((5, 12), generator=generator)
    wanted = torch.arange(5)
    moved = led(lambda x: x @ weight.T, start, wanted, 0.2)
    before, after = ((x @ weight.T).softmax(1)[wanted, wanted] for x in (start, moved))
    assert bool((after > before).all()) and float(after.min()) > 0.9
    assert float((moved - start).abs().max()) <= 10 * 0.2 * 1.2  # Adam moves by about its rate in a step


def test_impressions_are_what_the_network_computes_and_half_of_them_name_every_class() -> None:
    model, layer = network()
    found = impressions(model, layer, tail(), 1024, 0)
    again = impressions(model, layer, tail(), 1024, 0)
    assert np.array_equal(found.features, again.features) and np.array_equal(found.scores, again.scores)
    assert found.features.shape == (1024, 32) and found.features.min() >= 0.0 and found.features.max() <= 6.0
    exact = found.features @ layer.matrix()[:, :, 0].T + layer.offset()
    assert np.abs(found.scores - exact).max() < 0.05 * np.abs(exact).max()  # products may be in bfloat16
    wanted = (np.arange(256) % 20, np.arange(256, 512) % 20)
    for part, classes in enumerate(wanted):
        rows = slice(512 * part + 256, 512 * part + 512)
        assert np.mean(found.scores[rows].argmax(1) == classes) > 0.9
    assert np.mean(found.scores[:256].argmax(1) == wanted[0]) < 0.3  # a draw names whatever it happens to


def test_where_a_batchnorm_says_what_training_saw_draws_follow_it() -> None:
    model = parse_model("""<ir_version: 10, opset_import: ["" : 20]>
    main (float[N,4] x) => (float[N,9] y)
    <float[4,6] a = seeded(0), float[6] g = splat(1e-6), float[6] s = {1, -1, 2, 0, 3, -2}, float[6] m = splat(0),
     float[6] v = splat(1), float[6,5] u = seeded(1), float[5,9] w = seeded(2)>
    { h = MatMul (x, a)  q = BatchNormalization (h, g, s, m, v)  f = MatMul (q, u)  y = MatMul (f, w) }""")
    shapes.infer(model)
    layer = layer_of(model.graph[-1])
    assert layer is not None
    end = tail_of(layer)
    assert isinstance(end, Tail) and end.entry.name == "q"
    expected = np.array([1, -1, 2, 0, 3, -2]) @ np.asarray(model.graph.initializers["u"].const_value)
    np.testing.assert_allclose(
        impressions(model, layer, end, 512, 0).features[:256], expected[None].repeat(256, 0), rtol=0.02
    )


def test_inputs_that_leave_a_layer_idle_say_little_of_its_covariance() -> None:
    weight, bias, mean = np.eye(3), np.full(3, -2.0), np.zeros(3)
    assert excitement(weight, bias, mean, 4.0 * np.eye(3)) == 1.0  # deviations as large as the means
    assert excitement(weight, bias, mean, 1.0 * np.eye(3)) == pytest.approx(0.25)
    assert excitement(weight, bias, -bias, np.eye(3)) == 1.0  # centred: nothing is missing


def test_a_bottleneck_is_trusted_as_far_as_what_reads_it() -> None:
    model = parse_model("""<ir_version: 10, opset_import: ["" : 20]>
    main (float[N,4,1,1] x) => (float[N,5,1,1] y)
    <float[4,4,1,1] a = seeded(0), float[4] b = seeded(1), float[5,4,1,1] u = seeded(2), float[5] c = splat(-3)>
    { q = Conv (x, a, b)  e = Conv (q, u, c)  y = Relu (e) }""")
    shapes.infer(model)
    layers = [found for node in model.graph if (found := layer_of(node)) is not None]
    wide, narrow = (Moments(np.zeros(4), scale * np.eye(4), 100, 1.0) for scale in (100.0, 0.01))
    assert trusts(layers, {"a": wide, "u": wide}) == {"a": 1.0, "u": 1.0}
    found = trusts(layers, {"a": wide, "u": narrow})
    assert found["a"] == found["u"] < 0.1


def test_a_job_for_decisions_keeps_them_better_than_one_for_values() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(16, 12)).astype(np.float32)
    weight[:, :6] *= 4.0  # common to all classes: large in value, without effect on decisions
    weight[:, :6] = weight[:, :6].mean(1, keepdims=True).mean(0)
    x = rng.normal(size=(1024, 12)).astype(np.float32)
    y = x @ weight.T
    start = np.zeros_like(weight)
    start[:, 6:9] = weight[:, 6:9]
    model = parse_model("""<ir_version: 10, opset_import: ["" : 20]>
    main (float[N,12] x) => (float[N,16] y) <float[12,3] a = seeded(0), float[3,16] b = seeded(1)>
    { h = MatMul (x, a)  y = MatMul (h, b) }""")
    block = ir.to_proto(model).SerializeToString()

    def flips(decisions: bool) -> float:
        trained = train(Job("y", block, x, y, 200, 0, None, decisions))
        assert trained.after < trained.before
        found = x @ np.asarray(trained.weights["a"]) @ np.asarray(trained.weights["b"])
        return float(np.mean(found.argmax(1) != y.argmax(1)))

    assert flips(True) < flips(False)


def test_a_decision_layer_without_samples_is_fitted_and_trained_on_impressions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planish.passes.replace.decisive._COUNT", 512)
    model, _ = network(classes=400)
    x = np.random.default_rng(0).normal(size=(64, 3, 6, 6)).astype(np.float32)
    passes = 'replace{budget="parameters=-20%" factories=low-rank train=20 workers=1}'
    result = optimize(model, passes=passes)
    record = result.report["passes"][-1]
    assert record["changed"] == 1
    assert any("impressions of 400 classes, drawn at q" in note for note in record["notes"])
    before, after = record["measures"]["training"]["held_out_error"]["z"]
    assert after <= before < 1.0
    assert execute(result.model, {"x": x})["p"].shape == (64, 400)

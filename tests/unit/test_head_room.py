"""Head-room of ranges: as much as the scatter of extremes asks for, none where they are all alike."""

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir import metadata
from planish.ir.execute import execute
from planish.ir.statistics import Moments
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.quantize.clipping import mse_range
from planish.passes.quantize.head_room import depths, far, pre_activation, silent, widened


def test_extremes_of_more_normal_samples_stay_below_what_few_of_them_foretell() -> None:
    rng = np.random.default_rng(0)
    peaks = rng.standard_normal((32, 1000)).max(1)
    foretold = far(peaks, samples=32, expected=1000)
    assert peaks.max() <= foretold < 1.5 * peaks.max()
    assert rng.standard_normal((1000, 1000)).max() <= foretold


def test_peaks_that_are_all_alike_leave_nothing_to_expect() -> None:
    assert far(np.full(12, 21.6), samples=12, expected=1e6) == pytest.approx(21.6)
    assert far(np.array([np.nan, 3.0, np.inf]), samples=3, expected=1e6) == 3.0


def of(mean: list[float], low: list[float], high: list[float]) -> Moments:
    return Moments(*(np.asarray(part, np.float64) for part in (mean, [1.0] * len(mean), low, high)))


def test_head_room_widens_what_a_channel_moves_from_its_mean_not_the_mean() -> None:
    assert widened(of([20.0, 0.0], [19.0, -2.0], [21.0, 3.0]), None, 2.0) == pytest.approx((-4.0, 22.0))


def test_a_channel_seen_seldom_gets_more_head_room_and_less_where_many_channels_reach_as_far() -> None:
    alone, alike = of([0.0], [-1.0], [1.0]), of([0.0] * 64, [-1.0] * 64, [1.0] * 64)
    assert widened(alone, 32, 1.0)[1] == pytest.approx(np.sqrt(np.log(1e4) / np.log(32)))
    assert widened(alike, 32, 1.0)[1] == pytest.approx(np.sqrt(np.log(1e4) / np.log(32 * 64)))
    assert widened(alone, 10**4, 1.0) == widened(alone, None, 1.0) == (-1.0, 1.0)


HEAD = '<ir_version: 10, opset_import: ["" : 20]> '


def ranged(text: str, x: np.ndarray, passes: str = "activation-ranges") -> dict[str, dict[str, float]]:
    model = parse_model(HEAD + text)
    context = Context(synthetic=[{"x": x[i : i + 4]} for i in range(0, len(x), 4)])
    PassManager(passes).run(model, context)
    values: list[ir.Value] = [v for node in model.graph for v in node.outputs]
    return {str(v.name): metadata.get(v, metadata.EVIDENCE) or {} for v in values}


POOLED = """main (float[N,4,16,16] x) => (float[N,4] f)
   <float[4,4,1,1] w = seeded(0)>
{ c = Conv (x, w)  m = MaxPool <kernel_shape = [2,2], strides = [2,2]> (c)
  g = GlobalAveragePool (m)  f = Flatten (g) }"""


def test_depth_is_the_share_of_the_weighted_layers_on_the_longest_path() -> None:
    model = parse_model(
        HEAD
        + """main (float[N,4,8,8] x) => (float[N,4,8,8] y) <float[4,4,1,1] w = seeded(0)>
{ a = Conv (x, w)  r = Relu (a)  b = Conv (r, w)  c = Conv (b, w)  s = Add (r, c)  y = Conv (s, w) }"""
    )
    found = {str(value.name): share for value, share in depths(model).items()}
    assert found == {"a": 0.25, "r": 0.25, "b": 0.5, "c": 0.75, "s": 0.75, "y": 1.0}


def test_what_is_pooled_or_reshaped_stays_within_its_source() -> None:
    found = ranged(POOLED, np.random.default_rng(1).standard_normal((16, 4, 16, 16)).astype(np.float32))
    for name, source in (("m", "c"), ("g", "m"), ("f", "g")):
        assert found[name]["low"] >= found[source]["low"] and found[name]["high"] <= found[source]["high"]


def test_samples_that_differ_in_level_get_more_head_room_than_samples_that_do_not() -> None:
    x = np.repeat(np.random.default_rng(2).standard_normal((1, 4, 16, 16)).astype(np.float32) ** 5, 16, 0)
    alike = ranged(POOLED, x)["c"]
    assert alike["high"] == pytest.approx(execute(parse_model(HEAD + POOLED), {"x": x[:4]}, ["c"])["c"].max())
    level = np.linspace(0.2, 1, 16, dtype=np.float32)[:, None, None, None]
    differing = ranged(POOLED, x * level)["c"]
    assert 2 * alike["high"] <= differing["high"] < 2.3 * alike["high"]
    assert ranged(POOLED, x * level, "activation-ranges{deep=4}")["c"]["high"] > 1.3 * differing["high"]


def test_a_detector_is_silent_where_none_of_its_probabilities_reaches_one_half() -> None:
    model = parse_model(
        HEAD
        + """main (float[N,4] x) => (float[N,2,2] p, float[N,4] q) <int64[3] s = {0, 2, 2}>
{ a = Sigmoid (x)  p = Reshape (a, s)  q = Relu (x) }"""
    )
    for highest, expected in ((0.4, True), (0.6, False)):
        assert silent(model, {"p": of([0.1], [0.0], [highest]), "q": of([0.0], [0.0], [0.1])}) is expected


def test_only_what_weights_made_is_centred_by_training() -> None:
    model = parse_model(
        HEAD
        + """main (float[4,4] x) => (float[4,4] y)
   <float[4,4] w = seeded(0), float[4] b = seeded(1), float[4] one = splat(1)>
{ m = MatMul (x, w)  a = Add (m, b)  r = Relu (a)  s = Add (r, m)
  n = LayerNormalization (s, one)  y = MatMul (n, m) }"""
    )
    found = {str(v.name): pre_activation(v) for node in model.graph for v in node.outputs}
    named = {name: str(value.name) for name, value in found.items() if value is not None}
    assert named == {"m": "m", "a": "a", "r": "a"}


def test_biases_are_corrected_for_the_likeliest_convention_and_ranges_hold_for_all() -> None:
    x = np.random.default_rng(3).random((8, 4, 16, 16), np.float32)
    model = parse_model(HEAD + POOLED)
    feeds = [{"x": x[:4]}, {"x": 255 * x[4:]}]
    PassManager("activation-ranges").run(model, Context(synthetic=feeds, likeliest=feeds[:1] * 2))
    fact = metadata.get(model.graph.inputs[0], metadata.EVIDENCE) or {}
    assert fact["high"] > 250 and np.allclose(fact["mean"], x[:4].mean((0, 2, 3)), atol=1e-5)


def test_an_input_keeps_the_ends_that_many_values_reach_and_loses_tails_that_chance_made() -> None:
    rng = np.random.default_rng(4)
    pictures = np.clip(rng.normal(128, 80, 10**5), 0, 255)
    assert mse_range(pictures) == (0.0, 255.0)
    spectra = np.log(rng.exponential(size=10**5))  # of power: a long tail towards vanishing sound
    low, high = mse_range(spectra)
    assert low > 0.95 * spectra.min() and 0 < np.mean((spectra < low) | (spectra > high)) < 1e-3
    clipped = np.mean((np.clip(spectra, low, high) - spectra) ** 2) + ((high - low) / 255) ** 2 / 12
    assert clipped < ((spectra.max() - spectra.min()) / 255) ** 2 / 12


def test_what_is_only_moved_has_the_range_of_the_input_it_comes_from() -> None:
    text = """main (float[N,4,16,16] x) => (float[N,1024] f) <int64[2] s = {-1, 1024}> { f = Reshape (x, s) }"""
    x = np.random.default_rng(5).standard_normal((8, 4, 16, 16)).astype(np.float32)
    model = parse_model(HEAD + text)
    PassManager("activation-ranges").run(model, Context(synthetic=[{"x": x[:4]}, {"x": x[4:]}]))
    facts = [metadata.get(v, metadata.EVIDENCE) or {} for v in (model.graph.inputs[0], model.graph.outputs[0])]
    assert (facts[0]["low"], facts[0]["high"]) == (facts[1]["low"], facts[1]["high"]) == mse_range(x)

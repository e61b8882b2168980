"""Synthesised inputs: the scale a network was trained on is read back from its weights and biases."""

from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir.execute import execute
from planish.ir.shapes import infer
from planish.ir.statistics import Moments
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.synthesize.hypotheses import CONVENTIONS, search
from planish.passes.synthesize.priors import dead_leaves, fields, strokes
from planish.passes.synthesize.roles import Tokens
from planish.passes.synthesize.sentences import sentence
from planish.passes.synthesize.speech import speech
from planish.passes.synthesize.typicality import atypicality, odds, pre_activations

NET = """<ir_version: 10, opset_import: ["" : 18]>
main (float[N,{channels},{height},{width}] x) => (float[N,10] y)
   <float[16,{channels},3,3] w1 = seeded(0), float[16] b1 = splat(0), float[24,16,3,3] w2 = seeded(1),
    float[24] b2 = splat(0), float[32,24,3,3] w3 = seeded(2), float[32] b3 = splat(0), float[32,10] w4 = seeded(3)>
{{
   c1 = Conv <pads = [1,1,1,1]> (x, w1, b1)
   r1 = Relu (c1)
   c2 = Conv <pads = [1,1,1,1], strides = [2,2]> (r1, w2, b2)
   r2 = Relu (c2)
   c3 = Conv <pads = [1,1,1,1]> (r2, w3, b3)
   r3 = Relu (c3)
   p = GlobalAveragePool (r3)
   f = Flatten (p)
   y = Gemm (f, w4)
}}"""


def set_weights(model: ir.Model, name: str, array: np.ndarray) -> None:
    model.graph.initializers[name].const_value = ir.Tensor(array.astype(np.float32), name=name)


def trained_on(x: np.ndarray) -> ir.Model:
    """A net with BatchNorm folded, as training on x would leave it: every pre-activation ~ (β, γ), β and γ random."""
    rng = np.random.default_rng(5)
    model = parse_model(NET.format(channels=x.shape[1], height=x.shape[2], width=x.shape[3]))
    for layer in (1, 2, 3):
        c = execute(model, {"x": x}, [f"c{layer}"])[f"c{layer}"]
        w = model.graph.initializers[f"w{layer}"].const_value.numpy()
        gamma, beta = rng.uniform(0.5, 1.5, w.shape[0]), 0.4 * rng.standard_normal(w.shape[0])
        scale = gamma / (c.std((0, 2, 3)) + 1e-9)
        set_weights(model, f"w{layer}", w * scale[:, None, None, None])
        set_weights(model, f"b{layer}", beta - scale * c.mean((0, 2, 3)))
    return model


def test_what_is_normalised_behind_its_places_tells_no_scale() -> None:
    model = parse_model("""<ir_version: 10, opset_import: ["" : 18]>
    main (float[1,4,8,8] x) => (float[1,2,16,16] y)
       <float[8,4,3,3] w1 = seeded(0), float[8,8,3,3] w2 = seeded(1), float[2] s = splat(1), float[2] b = splat(0)>
    {
       told = Conv <pads = [1,1,1,1]> (x, w1)
       r = Relu (told)
       places = Conv <pads = [1,1,1,1]> (r, w2)
       side_by_side = DepthToSpace <blocksize = 2> (places)
       y = InstanceNormalization (side_by_side, s, b)
    }""")
    infer(model)
    assert [value.name for value in pre_activations(model)] == ["told"]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_convention_a_network_was_trained_with_is_among_those_inferred(convention: str) -> None:
    x = np.asarray(CONVENTIONS[convention](dead_leaves(np.random.default_rng(77), 8, 3, 32, 32)), np.float32)
    context = Context()
    record = PassManager("synthesize-inputs").run(trained_on(x), context).records[0]
    (change,) = record.changes
    assert context.synthetic
    made = np.concatenate([feed["x"] for feed in context.synthetic])
    # neighbouring conventions are not told apart by such a small net, but the scale always is
    assert 0.4 < made.std() / x.std() < 2.5, change.detail
    assert made.min() <= 0.75 * x.min() + 0.25 * x.max() and made.max() >= 0.75 * x.max() + 0.25 * x.min()


def test_features_get_the_mean_and_scale_that_the_biases_ask_for() -> None:
    rng = np.random.default_rng(8)
    unit = fields(rng, (16, 1, 40, 8), 3)
    x = (unit * [30.0, 4, 2, 2, 1, 1, 1, 1] + [-20.0, 3, 0, 0, 0, 0, 0, 0]).astype(np.float32)
    context = Context()
    PassManager("synthesize-inputs").run(trained_on(x), context)
    assert context.synthetic
    made = np.concatenate([feed["x"] for feed in context.synthetic])
    assert 10 < made[..., 0].std() < 90
    assert 0.3 < made.std() / x.std() < 3


@pytest.mark.parametrize("stored", ["uint8", "float16"])
def test_inputs_stored_in_other_types_are_made_in_them(stored: str) -> None:
    """An input that the model casts to float32; one in bytes holds pictures of 0 to 255."""
    pictures = dead_leaves(np.random.default_rng(7), 8, 3, 32, 32) * (255 if stored == "uint8" else 1)
    model = trained_on(pictures.astype(np.float32))
    x = model.graph.inputs[0]
    cast = ir.node("Cast", [x], attributes={"to": int(ir.DataType.FLOAT)})
    x.dtype, cast.outputs[0].name = ir.DataType[stored.upper()], "wide"
    x.replace_all_uses_with(cast.outputs[0])
    cast.replace_input_with(0, x)
    model.graph.insert_before(model.graph[0], cast)
    context = Context()
    outcome = PassManager("synthesize-inputs").run(model, context)
    assert context.synthetic, outcome.records[0].skips
    made = np.concatenate([feed["x"] for feed in context.synthetic])
    assert made.dtype == stored
    assert stored != "uint8" or (made.max() > 200 and made.min() < 50)


def test_two_pictures_that_are_compared_are_both_made() -> None:
    pictures = dead_leaves(np.random.default_rng(7), 8, 3, 32, 32).astype(np.float32)
    model = trained_on(pictures)
    other = ir.Value(name="other", shape=ir.Shape(["N", 3, 32, 32]), type=ir.TensorType(ir.DataType.FLOAT))
    pooled = ir.node("GlobalAveragePool", [other])
    flat = ir.node("Flatten", [pooled.outputs[0]])
    model.graph.inputs.append(other)
    for node, name in ((pooled, "pooled"), (flat, "flat")):
        node.outputs[0].name = name
        model.graph.append(node)
    model.graph.outputs.append(flat.outputs[0])
    context = Context()
    outcome = PassManager("synthesize-inputs").run(model, context)
    assert context.synthetic, outcome.records[0].skips
    feed = context.synthetic[0]
    assert feed["other"].shape == feed["x"].shape and feed["other"].std() > 0.5 * feed["x"].std()
    assert not np.array_equal(feed["other"], feed["x"])


FEATURES = """<ir_version: 10, opset_import: ["" : 18]>
main (float[N,12] x) => (float[N,4] y)
   <float[12] s = splat(1), float[12] t = splat(0), float[12] m = splat(0), float[12] v = splat(1),
    float[16,12] w = seeded(0), float[16] b = seeded(1), float[16,16] u = seeded(2), float[16,4] z = seeded(3)>
{
   n = BatchNormalization (x, s, t, m, v)
   h = Gemm <transB = 1> (n, w, b)
   r = Relu (h)
   q = Gemm (r, u)
   p = Relu (q)
   y = Gemm (p, z)
}"""


@pytest.mark.parametrize("passes", ["synthesize-inputs", "fold-affine-before,synthesize-inputs"])
def test_a_normalisation_of_the_input_tells_what_it_was_fed(passes: str) -> None:
    model, mean, std = parse_model(FEATURES), np.linspace(-50, 50, 12), np.logspace(-2, 2, 12)
    set_weights(model, "m", mean)
    set_weights(model, "v", std**2)
    context = Context()
    PassManager(passes).run(model, context)
    assert context.synthetic
    made = np.concatenate([feed["x"] for feed in context.synthetic])
    np.testing.assert_allclose(made.mean(0), mean, atol=0.3 * std.max())
    np.testing.assert_allclose(made.std(0), std, rtol=0.3)


def test_a_layer_whose_weights_8_bits_spoil_stays_float_and_the_others_do_not() -> None:
    """Features of very different scale, normalised: folded into the first weights, the small ones vanish."""
    model = parse_model(FEATURES)
    set_weights(model, "v", np.logspace(-4, 4, 12))
    passes = "fold-affine-before,synthesize-inputs,activation-ranges,keep-float,quantize"
    outcome = PassManager(passes).run(model, Context())
    kept = {change.site for change in outcome.records[3].changes}
    quantized = {change.site for change in outcome.records[4].changes}
    assert kept == {"h"} and quantized >= {"q", "y"}


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ("float[N,3,32,32] x, float[2,N,8] h", "input h is neither a signal nor fed from an output: no prior for it"),
        ("float[N,3,32,32] x, float[2,past,8] h", "input h is a state of no fixed size"),
        ("int64[N,4,4,4] x, float[N] h", "input x holds int64: no prior for it"),
        ("float[N] x, float[N] h", "input x has 1 dimensions"),
        ("float[0,3,32,32] x, float[2,N,8] h", "input x holds no elements"),
    ],
)
def test_inputs_without_a_prior_are_not_made_up(signature: str, reason: str) -> None:
    kind = "int64" if "int64" in signature else "float"
    body = "y = Identity (x) z = Shape (h)" if not reason.startswith("input x") else "y = Identity (x)"
    outputs = f"{kind}[M] y" + (", int64[3] z" if not reason.startswith("input x") else "")
    model = parse_model(f'<ir_version: 10, opset_import: ["" : 18]> main ({signature}) => ({outputs}) {{ {body} }}')
    context = Context()
    record = PassManager("synthesize-inputs").run(model, context).records[0]
    assert context.synthetic is None
    assert [skip.reason for skip in record.skips] == [reason]


def test_tokens_come_with_their_mask_and_only_trained_rows_are_named() -> None:
    model = parse_model("""<ir_version: 10, opset_import: ["" : 18]>
main (int64[N,S] ids, int64[N,S] mask, int64[N,S] types) => (float[N,S,8] y)
   <float[100,8] words = seeded(0), float[2,8] segments = seeded(1)>
{
   e = Gather (words, ids)
   t = Gather (segments, types)
   s = Add (e, t)
   m = Cast <to = 1> (mask)
   two = Constant <value_ints = [2]> ()
   u = Unsqueeze (m, two)
   y = Mul (s, u)
}""")
    table = model.graph.initializers["words"].const_value.numpy().copy()
    table[40:] = 0
    set_weights(model, "words", table)
    context = Context()
    PassManager("synthesize-inputs").run(model, context)
    assert context.synthetic
    for feed in context.synthetic:
        assert feed["ids"].max() < 40 and not feed["types"].any()
        assert feed["mask"][0].all() and not (feed["ids"] * (1 - feed["mask"])).any()
        assert (np.diff(feed["mask"], axis=1) <= 0).all()
    assert len({int(feed["mask"].sum()) for feed in context.synthetic}) > 1


def test_known_vocabularies_get_their_markers() -> None:
    tokens = Tokens("ids", 30522, np.arange(30522))
    chosen = sentence(tokens, 12, np.random.default_rng(0))
    assert chosen[0] == 101 and chosen[-1] == 102
    assert np.median(sentence(Tokens("ids", 999, np.arange(999)), 999, np.random.default_rng(0))) < 400


def test_state_is_carried_from_call_to_call() -> None:
    model = parse_model("""<ir_version: 10, opset_import: ["" : 18]>
main (float[N,T] sound, float[1,N,4] state) => (float[N,4] y, float[1,N,4] next)
   <float[512,4] w = seeded(0), float[4] b = splat(0.01), float half = splat(0.5), int64[1] zero = splat(0)>
{
   f = MatMul (sound, w)
   y = Add (f, b)
   u = Unsqueeze (y, zero)
   h = Mul (state, half)
   next = Add (u, h)
}""")
    context = Context()
    PassManager("synthesize-inputs{samples=3}").run(model, context)
    feeds = context.synthetic
    assert feeds and len(feeds) == 12 and not feeds[0]["state"].any()
    for before, after in pairwise(feeds):
        np.testing.assert_array_equal(execute(model.clone(), before)["next"], after["state"])


def test_speech_is_within_full_scale_and_most_of_it_is_low() -> None:
    sound = speech(np.random.default_rng(2), 16000)
    power = np.abs(np.fft.rfft(sound)) ** 2
    assert sound.shape == (16000,) and 0.05 < np.abs(sound).max() <= 1
    assert power[:2000].sum() > 0.7 * power.sum()  # below 2 kHz
    np.testing.assert_array_equal(sound, speech(np.random.default_rng(2), 16000))


def test_a_network_that_paints_is_fed_what_it_paints() -> None:
    """InstanceNormalization hides the input's scale from every later layer; the picture made tells it."""
    model = parse_model("""<ir_version: 10, opset_import: ["" : 18]>
main (float[N,3,32,32] x) => (float[N,3,32,32] y)
   <float[8,3,3,3] w = seeded(0), float[8] one = splat(1), float[8] zero = splat(0), float[3,8,1,1] v = seeded(1),
    float full = splat(80), float middle = splat(120)>
{
   c = Conv <pads = [1,1,1,1]> (x, w)
   n = InstanceNormalization (c, one, zero)
   r = Relu (n)
   d = Conv (r, v)
   t = Tanh (d)
   s = Mul (t, full)
   y = Add (s, middle)
}""")
    context = Context()
    record = PassManager("synthesize-inputs").run(model, context).records[0]
    assert record.changes[0].detail.startswith("pictures, 0…255 (")


def test_priors_are_deterministic_and_within_their_range() -> None:
    for prior in (dead_leaves, strokes):
        first, second = (prior(np.random.default_rng(3), 2, 1, 24, 20) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.shape == (2, 1, 24, 20) and first.min() >= 0 and first.max() <= 1
        assert 0.02 < first.mean() < 0.8
    sequences = fields(np.random.default_rng(3), (4, 1, 64, 6), 3)
    step = np.diff(sequences, axis=2).std()
    assert abs(sequences.std() - 1) < 1e-5 and step < 0.8  # neighbours in time are alike


def test_dead_leaves_have_the_spectrum_of_natural_pictures() -> None:
    u = dead_leaves(np.random.default_rng(1), 16, 1, 64, 64)[:, 0]
    power = (np.abs(np.fft.fft2(u - u.mean((1, 2), keepdims=True))) ** 2).mean(0)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(64) * 64, np.fft.fftfreq(64) * 64))
    bands = [(2, 4), (4, 8), (8, 16)]
    mean = [power[(radius >= a) & (radius < b)].mean() for a, b in bands]
    slope = np.polyfit(np.log([3, 6, 12]), np.log(mean), 1)[0]
    assert -3.2 < slope < -1.4  # natural pictures: about −2


def values(count: int, channels: int) -> list[ir.Value]:
    return [ir.Value(name=f"v{i}", shape=ir.Shape([1, channels])) for i in range(count)]


def observed(mean: float, std: float, count: int, channels: int) -> dict[str, Moments]:
    m, s = np.full(channels, mean), np.full(channels, std)
    return {f"v{i}": Moments(m, s, m - s, m + s) for i in range(count)}


def test_atypicality_grows_with_the_offset_and_with_saturation_and_ignores_dead_channels() -> None:
    layers = values(3, 4)
    scores = [atypicality(layers, observed(mean, 1.0, 3, 4), {}).mean() for mean in (0.0, 0.5, 2.0, 50.0)]
    assert scores == sorted(scores) and scores[0] < 0.05 and scores[-1] < 1.1
    assert atypicality(layers, observed(0.0, 600.0, 3, 4), {}).mean() > 5
    one = observed(0.1, 1.0, 1, 4)
    one["v0"].std[0], one["v0"].mean[0] = 1e-12, 9.0
    assert atypicality(layers[:1], one, {}).mean() < 0.1


def test_two_hypotheses_are_told_apart_only_when_the_layers_agree() -> None:
    best = np.array([0.2, 0.3, 0.4, 0.3])
    assert odds(best, best) == 1
    assert odds(best, best + np.array([0.2, -0.15, 0.1, -0.1])) > 0.5
    assert odds(best, best + np.array([0.2, 0.15, 0.1, 0.2])) < 0.01


def test_a_hypothesis_that_one_layer_cannot_bear_is_out_however_well_the_others_do() -> None:
    best = np.array([0.2, 0.3, 0.4, 0.3])
    assert odds(best, np.array([6.0, 0.1, 0.1, 0.1])) == 0


def test_search_finds_the_minimum_of_a_separable_objective() -> None:
    def objective(mean: np.ndarray, log_scale: np.ndarray) -> float:
        return float(np.sum((mean - [3.0, -1.0]) ** 2) + np.sum((log_scale - [2.0, 0.5]) ** 2))

    mean, log_scale, value = search(objective, 2, 600, np.random.default_rng(0))
    assert value < 0.05
    np.testing.assert_allclose(mean, [3, -1], atol=0.3)
    np.testing.assert_allclose(log_scale, [2, 0.5], atol=0.3)


def test_search_ends_where_nothing_is_gained_any_more() -> None:
    tried: list[float] = []

    def objective(mean: np.ndarray, log_scale: np.ndarray) -> float:
        tried.append(float(np.abs(mean).sum() + np.abs(log_scale).sum()))
        return 1.0 + min(tried[-1], 1.0)

    assert search(objective, 4, 1500, np.random.default_rng(0))[2] == min(1.0 + min(t, 1.0) for t in tried)
    assert len(tried) < 750


@pytest.mark.parametrize("batch", [1, 2])
def test_a_feature_input_with_a_fixed_batch_gets_samples_of_that_batch(batch: int) -> None:
    model = parse_model(f"""<ir_version: 10, opset_import: ["" : 18]>
main (float[{batch},16,24] x) => (float[{batch},16,8] y)
   <float[24,32] w = seeded(0), float[32] b = seeded(1), float[32,8] v = seeded(2)>
{{
   h = MatMul (x, w)
   s = Add (h, b)
   r = Relu (s)
   y = MatMul (r, v)
}}""")
    context = Context()
    PassManager("synthesize-inputs").run(model, context)
    assert context.synthetic
    assert {feed["x"].shape for feed in context.synthetic} == {(batch, 16, 24)}


@pytest.mark.parametrize("width", [8, 32])
def test_an_output_that_only_looks_like_a_picture_is_no_echo_of_the_input(width: int) -> None:
    """A product along the last axis counts its channels there, those of the input are counted along the first."""
    model: ir.Model = parse_model(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        main (float[1,3,16,32] x) => (float[1,3,16,{width}] y)
        <float[32,32] v = seeded(0), float[32,{width}] w = seeded(1)>
        {{ a = MatMul (x, v)  b = Relu (a)  y = MatMul (b, w) }}"""
    )
    context = Context()
    PassManager("synthesize-inputs").run(model, context)
    assert context.synthetic is None or context.synthetic[0]["x"].shape == (1, 3, 16, 32)

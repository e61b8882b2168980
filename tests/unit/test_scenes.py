"""Scenes: as varied as photographs, in the range that the pictures they stand for have."""

import numpy as np
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.synthesize.priors import dead_leaves
from planish.passes.synthesize.scenes import closer, scenes, texture

NET = """<ir_version: 10, opset_import: ["" : 18]>
main (float[N,24,24,3] x) => (float[N,3] y)
{
   y = ReduceMean <keepdims = 0> (x)
}"""


def test_scenes_differ_from_each_other_more_than_dead_leaves_of_one_scale() -> None:
    def between(pictures: np.ndarray) -> float:
        grey = pictures.mean(1) - pictures.mean()
        return float(grey.mean((1, 2)).var() / grey.var())

    made = scenes(np.random.default_rng(0), 32, 3, 48, 48)
    assert made.shape == (32, 3, 48, 48) and made.dtype == np.float32 and made.min() >= 0 and made.max() <= 1
    leaves = dead_leaves(np.random.default_rng(0), 32, 3, 48, 48)
    detail = [np.abs(np.diff(x, axis=3)).mean((1, 2, 3)) for x in (made, leaves)]
    assert between(made) > between(leaves)
    assert np.std(np.log(detail[0])) > np.std(np.log(detail[1]))


def test_a_texture_has_unit_variance_and_no_mean() -> None:
    for seed in range(8):
        plane = texture(np.random.default_rng(seed), 40, 32)
        assert plane.shape == (40, 32)
        np.testing.assert_allclose([plane.mean(), plane.std()], [0, 1], atol=1e-9)


def test_coming_closer_interpolates_linearly() -> None:
    ramp = np.broadcast_to(np.arange(32.0) / 31, (2, 16, 32))
    for seed in range(8):
        seen = closer(np.random.default_rng(seed), ramp)
        step = np.diff(seen[0, 0])
        assert seen.shape == ramp.shape and (step >= -1e-6).all()
        inner = step[4:-4]
        np.testing.assert_allclose(inner, inner[0], atol=1e-5)  # a ramp stays one, a part of it less steep
        assert 1 / 8 / 31 - 1e-6 <= inner[0] <= 1 / 31 + 1e-6


def test_scenes_span_what_each_channel_of_the_pictures_spans() -> None:
    ends = np.asarray([[-2.0, 3.0], [0.0, 255.0], [10.0, 11.0]], np.float32)
    given = ends[:, 0] + (ends[:, 1] - ends[:, 0]) * np.random.default_rng(0).random((8, 24, 24, 3), np.float32)
    context = Context(synthetic=[{"x": given[:4]}, {"x": given[4:]}])
    PassManager("vary-inputs{samples=12}").run(parse_model(NET), context)
    made = np.concatenate([feed["x"] for feed in context.likeliest])
    assert made.shape == (12, 24, 24, 3) and len(context.likeliest) == 3 and len(context.synthetic) == 2
    for channel in range(3):
        low, high = given[..., channel].min(), given[..., channel].max()
        assert low <= made[..., channel].min() and made[..., channel].max() <= high
        assert made[..., channel].std() > 0.1 * (high - low)


def test_real_samples_stay() -> None:
    x = np.zeros((2, 24, 24, 3), np.float32)
    context = Context(data=[{"x": x}])
    PassManager("vary-inputs").run(parse_model(NET), context)
    assert context.likeliest is None and context.fitting()[0]["x"] is x

"""Distilled inputs come closer to the statistics, stay in the range of what they start from, and say what they used."""

import numpy as np
import pytest
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager

torch = pytest.importorskip("torch")

NET = """
<ir_version: 10, opset_import: ["" : 18]>
main (float[N,3,16,16] x) => (float[N,5] y)
   <float[8,3,3,3] w = seeded(0), float[8] one = splat(1.5), float[8] shift = splat(0.4), float[8] var = splat(2),
    float[8,8,3,3] u = seeded(1), float[5,8] v = seeded(2), float[5] b = splat(0)>
{
   c = Conv <pads = [1,1,1,1]> (x, w)
   n = BatchNormalization (c, one, shift, shift, var)
   r = Relu (n)
   d = Conv <pads = [1,1,1,1], strides = [2,2]> (r, u)
   m = BatchNormalization (d, one, shift, shift, var)
   s = Relu (m)
   p = GlobalAveragePool (s)
   f = Flatten (p)
   y = Gemm <transB = 1> (f, v, b)
}
"""


def distilled(passes: str, samples: int = 16, seed: int = 0) -> Context:
    torch.set_num_threads(1)
    start = np.random.default_rng(0).uniform(-1, 1, (samples, 3, 16, 16)).astype(np.float32)
    context = Context(synthetic=[{"x": start[i : i + 4]} for i in range(0, samples, 4)], seed=seed)
    PassManager(f"fold-bn,{passes}").run(parse_model(NET), context)
    return context


def samples_of(context: Context) -> np.ndarray:
    return np.concatenate([np.asarray(feed["x"]) for feed in context.synthetic or ()])


@pytest.mark.parametrize("options", ["steps=15", "steps=15 generator=true", "steps=15 swing=false decisions=0"])
def test_the_moments_come_closer_to_those_of_training(options: str) -> None:
    context = distilled(f"distill-inputs{{{options}}}")
    before, after = context.record.measures["loss"]
    assert after < 0.8 * before
    made = samples_of(context)
    assert made.shape == (16, 3, 16, 16) and np.abs(made).max() <= 1 and np.isfinite(made).all()


def test_the_same_seed_gives_the_same_inputs_and_another_one_others() -> None:
    first, second, other = (samples_of(distilled("distill-inputs{steps=3}", seed=s)) for s in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_real_samples_are_left_alone() -> None:
    x = np.zeros((4, 3, 16, 16), np.float32)
    context = Context(data=[{"x": x}], synthetic=[{"x": x}])
    PassManager("distill-inputs").run(parse_model(NET), context)
    assert context.record.why_nothing() == "real samples were given"


def test_swinging_keeps_the_shape_and_moves_by_less_than_the_stride() -> None:
    from planish.passes.synthesize.distillation import swing

    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    torch.manual_seed(0)
    results = [swing(x, (2, 2)) for _ in range(40)]
    assert all(r.shape == x.shape for r in results)
    corners = {float(r[0, 0, 4, 4]) - float(x[0, 0, 4, 4]) for r in results}
    assert corners == {dy * 8.0 + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
    assert torch.equal(swing(x, (1, 1)), x)


def test_the_distance_is_zero_for_the_statistics_of_the_values_themselves() -> None:
    from planish.passes.synthesize.distillation import Statistics, distance

    x = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    own = Statistics(x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0))
    assert distance(x, own) < 1e-10
    assert abs(float(distance(x, Statistics(own.mean + 2 * own.std, own.std))) - 4) < 1e-4

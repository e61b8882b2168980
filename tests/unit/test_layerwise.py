"""Layer-wise passes without training: powers of two by ADMM, statistics in place of inputs, smoothed activations."""

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir.execute import execute
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.quantize.admm import admm, power_levels, project
from planish.passes.quantize.gptq import loss
from planish.passes.quantize.smooth_activations import smoothing


def problem(seed: int, rows: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((1, n, n))
    return rng.standard_normal((1, rows, n)), mix @ np.swapaxes(mix, 1, 2) / n + 0.1 * np.eye(n)


def test_projection_takes_the_nearest_power_with_the_thresholds_between_them() -> None:
    magnitudes = power_levels(7)
    assert magnitudes.tolist() == [0, 1, 2, 4]
    values = np.asarray([0.4, 0.6, -1.4, 1.6, 2.9, -3.1, 9.0])
    assert project(values, magnitudes).tolist() == [0, 1, -1, 2, 2, -4, 4]


@pytest.mark.parametrize("count", [3, 5, 7])
def test_admm_errs_less_than_projection_and_stays_on_its_levels(count: int) -> None:
    weight, hessian = problem(0, 10, 60)
    magnitudes = power_levels(count)
    first, step = admm(weight, hessian, magnitudes, iterations=0)
    levels, found = admm(weight, hessian, magnitudes)
    before, after = (loss(weight, q * a[:, :, None], hessian) for q, a in ((first, step), (levels, found)))
    assert (after <= before).all() and after.mean() < 0.8 * before.mean()
    assert set(np.unique(np.abs(levels))) <= set(magnitudes)


CHAIN = """
<ir_version: 10, opset_import: ["" : 18]>
main (float[N,3,8,8] x) => (float[N,5,8,8] y)
   <float[16,3,3,3] w = seeded(0), float[16] gain = seeded(4), float[16] shift = seeded(5), float[16] mean = splat(0.2),
    float[16] var = splat(2), float[5,16,3,3] v = seeded(2), float[5] b = splat(0.1)>
{
   c = Conv <pads = [1,1,1,1]> (x, w)
   n = BatchNormalization (c, gain, shift, mean, var)
   r = Relu (n)
   y = Conv <pads = [1,1,1,1]> (r, v, b)
}
"""


def test_layers_are_compressed_by_their_statistics_alone_and_the_mean_is_kept() -> None:
    model = parse_model(CHAIN)
    PassManager("fold-bn").run(model)
    exact = parse_model(CHAIN).graph.initializers["v"].const_value.numpy().astype(np.float64)
    context = Context()
    PassManager("compress-layers{weights=int3}").run(model, context)
    assert context.record.changed == 1 and context.record.matched == 2
    rounded = model.graph.initializers["v"].const_value.numpy().astype(np.float64)
    bias = model.graph.initializers["b"].const_value.numpy()
    rng = np.random.default_rng(0)
    networks = parse_model(CHAIN).graph.initializers
    gain, shift = (networks[name].const_value.numpy() for name in ("gain", "shift"))
    x = np.maximum(shift[:, None] + gain[:, None] * rng.standard_normal((20_000, 16, 9)), 0).reshape(20_000, -1)
    before, after = (x @ m.reshape(5, -1).T for m in (exact, rounded))
    assert np.abs((after + bias).mean(0) - (before + 0.1).mean(0)).max() < 0.05 * before.std()
    nearest = np.abs(exact).max(axis=(1, 2, 3)) / 3
    plain = np.clip(np.rint(exact / nearest[:, None, None, None]), -4, 3) * nearest[:, None, None, None]
    worse = x @ plain.reshape(5, -1).T
    assert (after - before).var() < 0.7 * (worse - before).var()


def test_powers_of_two_reach_the_integers_of_the_model() -> None:
    model = parse_model(CHAIN)
    feed = {"x": np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype(np.float32)}
    PassManager("fold-bn,activation-ranges,ldnq{levels=5},quantize").run(model, Context(data=[feed]))
    levels = [v.const_value.numpy() for n, v in model.graph.initializers.items() if n.endswith("_levels")]
    weights = [array for array in levels if array.dtype == np.int8]
    assert len(weights) == 2 and all(set(np.unique(np.abs(q))) <= {0, 1, 2} for q in weights)


def test_even_counts_of_levels_are_refused() -> None:
    from planish.errors import UsageError

    with pytest.raises(UsageError, match="odd"):
        PassManager("ldnq{levels=4}")


NORM = """
<ir_version: 10, opset_import: ["" : 18]>
main (float[N,4,8] x) => (float[N,4,6] y, float[N,4,5] z)
   <float[8] g = seeded(3), float[8] b = seeded(4), float[8,6] w = seeded(0), float[8] c = splat(0.3),
    float[8,8] v = seeded(2), float[8,5] u = seeded(5)>
{
   i = MatMul (x, v)
   j = Add (i, c)
   n = LayerNormalization <axis = -1> (j, g, b)
   y = MatMul (n, w)
   z = MatMul (n, u)
}
"""


def test_smoothing_changes_no_output_and_evens_out_the_activations() -> None:
    model = parse_model(NORM)
    model.graph.initializers["g"].const_value = ir.Tensor(np.asarray([1, 1, 1, 60, 1, 1, 1, 1], np.float32), name="g")
    feed = {"x": np.random.default_rng(0).standard_normal((16, 4, 8)).astype(np.float32)}
    before = execute(model, feed, ["y", "z", "n"])
    context = Context(data=[feed])
    PassManager("smooth-activations").run(model, context)
    after = execute(model, feed, ["y", "z", "n"])
    assert context.record.changed == 1
    for name in ("y", "z"):
        assert np.allclose(before[name], after[name], rtol=1e-4, atol=1e-3)
    spread = [float(np.abs(r["n"]).max((0, 1)).max() / np.median(np.abs(r["n"]).max((0, 1)))) for r in (before, after)]
    assert spread[1] < spread[0] / 3


def test_dead_channels_are_not_scaled() -> None:
    s = smoothing(np.asarray([4.0, 0.0, 1.0]), np.asarray([1.0, 2.0, 0.0]), 0.5)
    assert s.tolist() == [2.0, 1.0, 1.0]

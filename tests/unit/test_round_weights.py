"""Rounding that makes up for itself: GPTQ by its identity, descent by what it promises, layers by what they give."""

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir.execute import execute
from planish.ir.quantization import Encoding
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.quantize.gptq import descend, gptq, grids, inverse_factor, loss, solve
from planish.passes.quantize.moments import InputMoments

Floats = np.ndarray


def problem(seed: int, rows: int, n: int, groups: int = 1) -> tuple[Floats, Floats]:
    """Weights and a well-conditioned H with correlated inputs."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((groups, n, n))
    return rng.standard_normal((groups, rows, n)), mix @ np.swapaxes(mix, 1, 2) / n + 0.1 * np.eye(n)


def brain_surgery(row: Floats, hessian: Floats, scale: float, low: int, high: int) -> Floats:
    """Optimal brain surgeon in column order: round one weight, update the others, take it out of H⁻¹."""
    w, inverse, levels = row.copy(), np.linalg.inv(hessian), np.zeros(len(row))
    for j in range(len(row)):
        levels[j] = np.clip(np.rint(w[j] / scale), low, high)
        w -= inverse[:, j] * (w[j] - levels[j] * scale) / inverse[j, j]
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
        inverse[j, j] = 1.0
    return levels


def test_gptq_by_the_cholesky_factor_is_sequential_brain_surgery() -> None:
    weight, hessian = problem(0, 5, 300)  # more columns than a block holds
    scale, low, high = np.full((1, 5), 0.3), np.full((1, 5), -8.0), np.full((1, 5), 7.0)
    levels = gptq(weight, inverse_factor(hessian), scale, low, high)
    for row, found in zip(weight[0], levels[0], strict=True):
        assert np.array_equal(brain_surgery(row, hessian[0], 0.3, -8, 7), found)


def test_descent_never_errs_more_than_where_it_starts() -> None:
    weight, hessian = problem(1, 8, 40, groups=3)
    low, high = np.full((3, 8), -4.0), np.full((3, 8), 3.0)
    scale = np.abs(weight).max(2) / 4
    start = np.clip(np.rint(weight / scale[:, :, None]), -4, 3)
    levels, found = descend(weight, hessian, start, scale, low, high, sweeps=3)
    before, after = (loss(weight, q * s[:, :, None], hessian) for q, s in ((start, scale), (levels, found)))
    assert (after <= before * (1 + 1e-12)).all() and after.mean() < 0.7 * before.mean()
    assert levels.min() >= -4 and levels.max() <= 3


@pytest.mark.parametrize("zero_points", [False, True])
def test_a_channel_uses_as_many_levels_as_its_bits_hold(zero_points: bool) -> None:
    weight, hessian = problem(2, 6, 50)
    weight[0, 0] = np.abs(weight[0, 0])  # one sign only
    weight[0, 1] = 0
    levels, scale = solve(weight, hessian, -8, 7, zero_points=zero_points)
    assert (np.ptp(levels, axis=2) <= 15).all() and np.abs(levels).max() <= 15
    assert (levels[0, 1] == 0).all() and np.isfinite(scale).all() and (scale > 0).all()
    assert (levels[0, 0].max() > 8) == zero_points


def test_every_grid_holds_zero() -> None:
    weight = np.stack([np.linspace(1, 2, 10), np.linspace(-2, -1, 10), np.linspace(-1, 3, 10)])[None]
    for scale, low, high in grids(weight, -4, 3, True):
        assert (low <= 0).all() and (high >= 0).all() and (high - low == 7).all() and (scale > 0).all()


def test_the_wanted_weights_undo_what_earlier_layers_did_to_the_inputs() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4000, 6)) @ rng.standard_normal((6, 6)) + rng.standard_normal(6)
    distortion = np.eye(6) + 0.2 * rng.standard_normal((6, 6))
    now = x @ distortion.T + 0.5
    weight = rng.standard_normal((1, 3, 6))
    moments = InputMoments.of(x, now)
    wanted = moments.wanted(weight, 1e-9)
    shift = moments.shift(weight, wanted)
    y = x @ weight[0].T
    left = np.square(y - now @ wanted[0].T - shift[0]).mean() / y.var()
    untouched = np.square(y - now @ weight[0].T - moments.shift(weight, weight)[0]).mean() / y.var()
    assert left < 1e-3 < 0.1 < untouched


CHAIN = """
<ir_version: 10, opset_import: ["" : 18]>
main (float[N,6,8,8] x) => (float[N,5,8,8] y)
   <float[16,6,1,1] w = seeded(0), float[16,1,3,3] d = seeded(1), float[5,16,3,3] v = seeded(2),
    float[5] b = splat(0.1)>
{
   c = Conv (x, w)
   r = Relu (c)
   e = Conv <group = 16, pads = [1,1,1,1]> (r, d)
   y = Conv <pads = [1,1,1,1]> (e, v, b)
}
"""


def outputs(passes: str, feed: dict[str, Floats]) -> Floats:
    model, context = parse_model(CHAIN), Context(data=[feed])
    PassManager(passes).run(model, context)
    return np.asarray(execute(model, feed)["y"], np.float64)


def test_a_network_rounded_to_3_bits_is_closer_than_with_the_nearest_levels() -> None:
    rng = np.random.default_rng(4)
    mix = rng.standard_normal((6, 6))
    feed = {"x": np.einsum("ij,njhw->nihw", mix, rng.standard_normal((8, 6, 8, 8))).astype(np.float32)}
    exact = outputs("", feed)
    errors = {
        passes: float(np.square(outputs(passes, feed) - exact).mean() / exact.var())
        for passes in (
            "activation-ranges,quantize{weights=int3 clipping=mse}",
            "activation-ranges,round-weights{weights=int3 zero-points=false},quantize{weights=int3}",
        )
    }
    nearest, rounded = errors.values()
    assert rounded < nearest / 2


def test_quantize_keeps_the_levels_and_scales_that_were_found() -> None:
    model = parse_model(CHAIN)
    feed = {"x": np.random.default_rng(5).standard_normal((4, 6, 8, 8)).astype(np.float32)}
    context = Context(data=[feed])
    PassManager("activation-ranges,round-weights").run(model, context)
    weights = {v.name: (Encoding.of(v), v.const_value.numpy()) for v in model.graph.initializers.values()}
    PassManager("quantize{weights=int4}").run(model, context)
    for name in ("w", "d", "v"):
        encoding, rounded = weights[name]
        assert encoding is not None
        levels = model.graph.initializers[f"{name}_levels"].const_value.numpy()
        scale = model.graph.initializers[f"{name}_scale"].const_value.numpy()
        assert np.array_equal(scale, encoding.scale)
        assert np.allclose(levels * scale[:, None, None, None], rounded, rtol=1e-5)


def test_weights_changed_after_they_were_rounded_are_rounded_again() -> None:
    model = parse_model(CHAIN)
    feed = {"x": np.random.default_rng(5).standard_normal((4, 6, 8, 8)).astype(np.float32)}
    context = Context(data=[feed])
    PassManager("activation-ranges,round-weights").run(model, context)
    value = model.graph.initializers["w"]
    value.const_value = ir.Tensor(value.const_value.numpy() * 1.1 + 0.01, name="w")
    PassManager("quantize{weights=int8}").run(model, context)
    levels = model.graph.initializers["w_levels"].const_value.numpy()
    assert np.abs(levels).max() == 127


def test_more_grids_to_choose_from_err_less(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    weight, inputs = rng.standard_normal((6, 4, 9)), rng.standard_normal((6, 200, 9)) + 1.0
    hessian = np.swapaxes(inputs, 1, 2) @ inputs / 200
    errors = {}
    for columns in (9, 2048):
        monkeypatch.setattr("planish.passes.quantize.gptq._TRIED", columns)
        levels, scale = solve(weight, hessian, -8, 7, zero_points=True)
        errors[columns] = loss(weight, levels * scale[:, :, None], hessian)
        assert (levels.max(2) - levels.min(2) <= 15).all() and (scale > 0).all()
    assert (errors[2048] <= errors[9] + 1e-12).all() and errors[2048].mean() < 0.9 * errors[9].mean()


def test_weights_are_rounded_for_the_likeliest_convention_of_the_inputs() -> None:
    rng = np.random.default_rng(0)
    likeliest = [{"x": rng.standard_normal((4, 6, 8, 8)).astype(np.float32) ** 3}]
    mixed = [{"x": 1 - 10 * np.abs(feed["x"][:, ::-1])} for feed in likeliest]
    found = []
    for context in (Context(synthetic=mixed, likeliest=likeliest), Context(synthetic=likeliest), Context(data=mixed)):
        model = parse_model(CHAIN)
        PassManager("round-weights{weights=int3}").run(model, context)
        found.append(model.graph.initializers["v"].const_value.tobytes())
    assert found[0] == found[1] != found[2]


def test_made_inputs_are_brought_to_the_moments_that_batchnorm_left() -> None:
    graph = """<ir_version: 10, opset_import: ["" : 18]>
main (float[N,6,8,8] x) => (float[N,5,8,8] y)
   <float[6,1,1,1] w = splat(0.5), float[6] g = splat(1.5), float[6] b = splat(0.2), float[6] m = splat(0),
    float[6] s = splat(1), float[5,6,3,3] v = seeded(2)>
{
   c = Conv <group = 6> (x, w)
   n = BatchNormalization (c, g, b, m, s)
   r = Relu (n)
   y = Conv <pads = [1,1,1,1]> (r, v)
}"""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 6, 8, 8)).astype(np.float32)
    other = x * np.linspace(0.5, 2, 6, dtype=np.float32).reshape(6, 1, 1) + 1
    found = {}
    for kind in ("synthetic", "data"):
        for name, given in (("x", x), ("other", other)):
            model = parse_model(graph)
            context = Context(**{kind: [{"x": given}]})
            PassManager("round-weights{weights=int3}").run(model, context)
            found[kind, name] = np.asarray(model.graph.initializers["v"].const_value.numpy())
    np.testing.assert_allclose(found["synthetic", "x"], found["synthetic", "other"], rtol=1e-3)
    assert not np.allclose(found["data", "x"], found["data", "other"], rtol=1e-3)


def test_the_mean_of_an_error_counts_only_where_no_bias_takes_it_up() -> None:
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((256, 12)) + 4).astype(np.float32)
    graphs = {
        "gemm": "<float[12,3] w = seeded(0), float[3] b = splat(0)> { y = Gemm (x, w, b) }",
        "matmul": "<float[12,3] w = seeded(0)> { y = MatMul (x, w) }",
    }
    errors = {}
    for name, graph in graphs.items():
        model = parse_model(f'<ir_version: 10, opset_import: ["" : 18]> main (float[N,12] x) => (float[N,3] y) {graph}')
        before = np.asarray(model.graph.initializers["w"].const_value.numpy())
        PassManager("round-weights{weights=int3 damping=0.01}").run(model, Context(data=[{"x": x}]))
        wrong = x @ (np.asarray(model.graph.initializers["w"].const_value.numpy()) - before)
        errors[name] = np.square(wrong.mean(0)).sum(), wrong.var(0).sum()
    assert errors["gemm"][0] > errors["matmul"][0]  # of which the bias takes all
    assert errors["gemm"][1] < errors["matmul"][1]

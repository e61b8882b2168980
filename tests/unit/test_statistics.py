"""Moments: the clipped-normal formulas against sampling, and their way through a graph."""

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir import metadata
from planish.ir.probe import Probe, renormalised, with_shapes
from planish.ir.propagate import propagated
from planish.ir.statistics import Moments, add, affine, clipped, normal_cdf
from planish.ir.text import parse_model

BOUNDS = [(0.0, np.inf), (0.0, 6.0), (-1.0, 1.0), (-np.inf, 2.0), (-np.inf, np.inf)]


def moments(mean: list[float], std: list[float]) -> Moments:
    m, s = np.asarray(mean), np.asarray(std)
    return Moments(m, s, m - 6 * s, m + 6 * s)


@pytest.mark.parametrize("bounds", BOUNDS)
def test_clipped_moments_are_those_of_clipped_samples(bounds: tuple[float, float]) -> None:
    given = moments([-2.0, -0.3, 0.0, 1.5, 7.0], [1.0, 0.5, 2.0, 3.0, 1.5])
    z = given.mean + given.std * np.random.default_rng(0).standard_normal((1_000_000, 5))
    sample = np.clip(z, *bounds)
    found = clipped(given, *bounds)
    np.testing.assert_allclose(found.mean, sample.mean(0), atol=8e-3)
    np.testing.assert_allclose(found.std, sample.std(0), atol=8e-3)
    assert (found.low >= bounds[0]).all() and (found.high <= bounds[1]).all()


def test_normal_cdf_is_the_error_function() -> None:
    from math import erf

    x = np.linspace(-6, 6, 241)
    np.testing.assert_allclose(normal_cdf(x), [(1 + erf(t / 2**0.5)) / 2 for t in x], atol=2e-7)


def test_sums_add_variances_and_affine_maps_flip_ranges() -> None:
    total = add([moments([1.0], [3.0]), moments([2.0], [4.0])])
    assert (total.mean, total.std) == (3.0, 5.0)
    flipped = affine(moments([1.0], [1.0]), np.asarray([-2.0]), np.asarray([0.5]))
    assert (flipped.mean, flipped.std, flipped.low, flipped.high) == (-1.5, 2.0, -13.5, 10.5)


def test_pooled_moments_are_those_of_the_joined_samples() -> None:
    x = np.random.default_rng(1).standard_normal((2, 50, 3)) * [1.0, 2.0, 3.0] + [[[0.0]], [[4.0]]]
    parts = [Moments(p.mean(0), p.std(0), p.min(0), p.max(0)) for p in x]
    joined, found = x.reshape(100, 3), Moments.pooled(parts)
    np.testing.assert_allclose(found.mean, joined.mean(0))
    np.testing.assert_allclose(found.std, joined.std(0))
    np.testing.assert_array_equal(found.high, joined.max(0))


def residual() -> ir.Model:
    model = parse_model("""<ir_version: 10, opset_import: ["" : 18]>
    main (float[2,3,8,8] x) => (float[2,4,8,8] y)
       <float[4,3,3,3] w = seeded(0), float[4,3,3,3] v = seeded(1)>
    {
       a = Conv <pads = [1,1,1,1]> (x, w)
       b = Conv <pads = [1,1,1,1]> (x, v)
       r = Relu (a)
       y = Add (r, b)
    }
    """)
    values = {value.name: value for node in model.graph for value in node.outputs}
    metadata.put(values["a"], metadata.STATISTICS, {"mean": [0, 1, 2, 3], "std": [1, 1, 2, 2], "axis": 1})
    metadata.put(values["b"], metadata.STATISTICS, {"mean": [1, 1, 1, 1], "std": [0.5] * 4, "axis": 1})
    return model


def test_statistics_reach_the_residual_sum_without_running_the_graph() -> None:
    model = residual()
    found = {value.name: m for value, m in propagated(model, 6.0).items()}
    relu = clipped(moments([0, 1, 2, 3], [1, 1, 2, 2]), 0.0, np.inf)
    np.testing.assert_allclose(found["y"].mean, relu.mean + 1)
    np.testing.assert_allclose(found["y"].std, np.hypot(relu.std, 0.5))
    assert found["r"].low.min() == 0 and found["r"].high.max() == 15


def test_renormalised_values_have_exactly_their_stored_moments() -> None:
    model = with_shapes(residual())
    feed = {"x": np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32) * 40 + 7}
    found = Probe(renormalised(model), ["a", "b"])([feed])
    np.testing.assert_allclose(found["a"].mean, [0, 1, 2, 3], atol=1e-4)
    np.testing.assert_allclose(found["a"].std, [1, 1, 2, 2], rtol=1e-4)
    np.testing.assert_allclose(found["b"].std, 0.5, rtol=1e-4)


@pytest.mark.parametrize("opset", [11, 18])
def test_a_probe_sees_what_numpy_sees(opset: int) -> None:
    model = with_shapes(
        parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> main (float[N,3,5,5] x) => (float[N,3,5,5] y) '
                    "{ y = Relu (x) }")
    )  # fmt: skip
    feeds = [{"x": np.random.default_rng(s).standard_normal((2, 3, 5, 5)).astype(np.float32)} for s in (0, 1)]
    y = np.maximum(np.concatenate([f["x"] for f in feeds]), 0)
    found = Probe(model, ["y"])(feeds)["y"]
    np.testing.assert_allclose(found.mean, y.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.std, y.std((0, 2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(found.high, y.max((0, 2, 3)))

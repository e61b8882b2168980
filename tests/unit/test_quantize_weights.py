"""Integer weights, biases and their correction, by what defines them."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planish.passes.quantize.bias_correction import mean_shift
from planish.passes.quantize.keep_float import refused
from planish.passes.quantize.weights import bias_levels, symmetric_levels, weight_encoding

INT8 = ir.DataType.INT8


def weights(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(st.integers(0, 1000), st.sampled_from([0, 1, None]), st.floats(1e-20, 1e20))
def test_every_weight_is_within_half_a_step_and_no_level_is_minus_128(seed: int, axis: int | None, size: float) -> None:
    w = (weights(seed, 4, 3, 3, 3).astype(np.float64) * size).astype(np.float32)
    encoding = weight_encoding(w, axis, INT8, 0.1)
    levels = symmetric_levels(w, encoding)
    assert levels.dtype == np.int8 and levels.min() >= -127
    shape = [1] * 4
    if axis is not None:
        shape[axis] = -1
    error = np.abs(encoding.dequantize(levels) - w.astype(np.float64))
    assert (error <= encoding.scale.reshape(shape) * 0.50001).all()


def test_negating_the_weights_negates_the_levels() -> None:
    w = weights(0, 8, 5)
    encoding = weight_encoding(w, 0, INT8, 1.0)
    np.testing.assert_array_equal(symmetric_levels(-w, encoding), -symmetric_levels(w, encoding))


def test_a_dead_channel_and_a_tiny_one_keep_their_biases() -> None:
    w = weights(1, 3, 4)
    w[0], w[1] = 0, w[1] * 1e-12
    bias = np.asarray([5.0, -7.0, 0.3], np.float32)
    encoding = weight_encoding(w, 0, INT8, 0.02, bias)
    scale = np.asarray(0.02 * encoding.scale.astype(np.float64), np.float32)
    assert (scale > 0).all() and np.isfinite(scale).all()
    levels = bias_levels(bias, scale)
    assert np.abs(levels).max() <= 2**30 + 1
    np.testing.assert_allclose(levels * scale.astype(np.float64), bias, rtol=1e-2)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_mean_shift_is_the_mean_of_the_error_of_a_convolution_away_from_the_border(groups: int) -> None:
    error, mean = weights(2, 6, 6 // groups, 3, 3).astype(np.float64), weights(3, 6).astype(np.float64)
    patch = np.broadcast_to(mean[:, None, None], (6, 3, 3)).reshape(groups, 6 // groups, 3, 3)
    expected = [np.sum(error[o] * patch[o * groups // 6]) for o in range(6)]
    np.testing.assert_allclose(mean_shift(error, mean, 0, groups), expected, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_mean_shift_of_a_matrix_follows_its_output_axis(axis: int) -> None:
    error, mean = weights(4, 5, 3), weights(5, 5 if axis == 1 else 3)
    expected = mean @ error if axis == 1 else error @ mean
    np.testing.assert_allclose(mean_shift(error, mean, axis), expected, rtol=1e-5)


def test_fewest_costliest_sites_are_refused_until_the_budget_holds() -> None:
    alone = {"a": {"y": 1e-2}, "b": {"y": 1e-3}, "c": {"y": 1e-5}}
    assert refused(alone, {"y": 0.0}, {"y": 1.0}) == []
    assert refused(alone, {"y": 0.0}, {"y": 2e-3}) == ["a"]
    assert refused(alone, {"y": 0.0}, {"y": 1e-4}) == ["a", "b"]
    assert refused(alone, {"y": 1e-3}, {"y": 1e-4}) is None

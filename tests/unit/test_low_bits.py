"""Weights of few bits: balanced rounding and clipping, by the identities that define them."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planish.passes.quantize.clipping import mse_magnitude
from planish.passes.quantize.squant import squant
from planish.passes.quantize.weights import FORMATS, WeightFormat, weight_encoding, weight_levels

INT8 = ir.DataType.INT8


def weights(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([(6, 8, 3, 3), (4, 1, 5, 5), (5, 40, 1, 1), (7, 33)]), st.floats(0.05, 2)
)
def test_squant_bounds_the_error_of_elements_kernels_and_channels(
    seed: int, shape: tuple[int, ...], step: float
) -> None:
    w = weights(seed, *shape)
    levels = squant(w, np.full(shape[0], step), -1000, 1000)
    error = (levels - w.astype(np.float64) / step).reshape(*shape[:2], -1)
    assert (np.abs(error) <= 1 + 1e-9).all()
    assert (np.abs(error.sum(2)) <= 1 + 1e-9).all()
    assert (np.abs(error.sum((1, 2))) <= 0.5 + 1e-9).all()
    nearest = np.rint(w.astype(np.float64) / step)
    assert (np.abs(levels - nearest) <= 1).all()


def test_squant_stays_within_its_levels() -> None:
    w = weights(0, 8, 4, 3, 3)
    low, high = FORMATS["int3"]
    scale = np.abs(w).max(axis=(1, 2, 3)) / high
    levels = squant(w, scale, low, high)
    assert levels.min() >= low and levels.max() <= high
    nearest = np.clip(np.rint(w / scale[:, None, None, None]), low, high)
    shape = (8, -1)

    def channel(q: np.ndarray) -> float:
        return float(np.abs((q - w / scale[:, None, None, None]).reshape(shape).sum(1)).sum())

    assert channel(levels) < channel(nearest)


@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("name", ["int4", "int3", "int2", "ternary"])
def test_mse_clipping_errs_no_more_than_the_largest_weight_and_less_with_an_outlier(
    name: str, axis: int | None
) -> None:
    w = weights(1, 16, 12)
    w[3, 5] = 4.0
    low, high = FORMATS[name]

    def squares(clipping: str) -> float:
        encoding = weight_encoding(w, axis, INT8, 1.0, None, (low, high), clipping)
        levels = weight_levels(w, encoding, 0, WeightFormat((low, high)))
        assert levels.min() >= low and levels.max() <= high
        return float(np.square(encoding.dequantize(levels) - w).sum())

    assert squares("mse") < squares("none")


def test_a_channel_of_zeros_has_a_magnitude_of_zero_and_levels_of_zero() -> None:
    w = weights(2, 3, 4)
    w[1] = 0
    magnitude = mse_magnitude(w, 0, -8, 7)
    assert magnitude[1] == 0 and (magnitude[[0, 2]] > 0).all()
    for rounding in ("nearest", "squant"):
        form = WeightFormat(FORMATS["int4"], rounding=rounding)
        encoding = weight_encoding(w, 0, INT8, 1.0, None, form.levels, "mse")
        assert (weight_levels(w, encoding, 0, form)[1] == 0).all()

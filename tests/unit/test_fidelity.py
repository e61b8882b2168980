"""Distances between executions: SQNR, relative error, agreement; NaN and infinity never look like success."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planish.ir.fidelity import compare, sqnr, worst_relative


def test_sqnr_of_equal_arrays_is_infinite_and_of_white_noise_as_computed_by_hand() -> None:
    x = np.array([3.0, 4.0])
    assert sqnr(x, x) == math.inf
    assert sqnr(x, x + np.array([0.3, 0.4])) == pytest.approx(20.0)


@given(st.floats(1e-3, 1e3))
def test_sqnr_does_not_depend_on_the_unit(unit: float) -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=100), rng.normal(size=100) * 0.1
    assert sqnr(unit * x, unit * (x + noise)) == pytest.approx(sqnr(x, x + noise))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_finite_is_infinitely_bad(broken: float) -> None:
    reference = [{"y": np.array([[1.0, 2.0]])}]
    found = compare(reference, [{"y": np.array([[1.0, broken]])}])
    assert found[0].sqnr_db == -math.inf
    assert worst_relative(found) == math.inf


def test_equal_infinities_and_nans_are_no_difference() -> None:
    x = [{"y": np.array([[np.nan, np.inf, 1.0]])}]
    found = compare(x, x)
    assert (found[0].sqnr_db, found[0].relative, found[0].worst) == (math.inf, 0.0, 0.0)


def test_another_shape_or_a_missing_output_is_all_wrong() -> None:
    reference = [{"y": np.zeros((1, 3))}]
    assert compare(reference, [{"y": np.zeros((1, 4))}])[0].relative == math.inf
    assert compare(reference, [{}])[0].relative == math.inf


def test_agreement_counts_rows_with_the_same_decision() -> None:
    reference = [{"y": np.array([[1.0, 0.0], [0.0, 1.0]])}]
    found = compare(reference, [{"y": np.array([[0.9, 0.1], [0.6, 0.4]])}])
    assert found[0].agreement == 0.5
    assert found[0].relative == pytest.approx(0.6)

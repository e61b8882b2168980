"""Bisection finds the first bad rewrite in logarithmic time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planish.passes.bisect import Limit, first_bad


@given(st.integers(1, 500), st.data())
def test_the_first_bad_rewrite_is_found(total: int, data: st.DataObject) -> None:
    culprit = data.draw(st.integers(1, total))
    runs: list[int] = []

    def is_bad(limit: int) -> bool:
        runs.append(limit)
        return limit >= culprit

    assert first_bad(is_bad, total) == culprit
    assert len(runs) <= total.bit_length() + 3


@pytest.mark.parametrize(("bad_from", "expected"), [(0, 0), (99, None)])
def test_a_model_bad_from_the_start_and_a_good_pipeline(bad_from: int, expected: int | None) -> None:
    assert first_bad(lambda limit: limit >= bad_from, 10) == expected


def test_the_limit_permits_so_many_rewrites_and_counts_all() -> None:
    limit = Limit(2)
    assert [limit(), limit(), limit(), limit()] == [True, True, False, False]
    assert limit.asked == 4
    assert all(Limit(None)() for _ in range(3))

"""pass@k against enumeration of all draws."""

from itertools import combinations
from statistics import fmean

import pytest

from codescaler_plugin.errors import DataError
from codescaler_plugin.intervals import pass_at_k


@pytest.mark.parametrize(("n", "right", "k"), [(8, 3, 1), (8, 3, 4), (8, 0, 2), (8, 8, 8), (5, 1, 5), (6, 5, 2)])
def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_right_one(n, right, k):
    passed = [True] * right + [False] * (n - right)
    assert pass_at_k(passed, k) == pytest.approx(fmean(any(draw) for draw in combinations(passed, k)))


def test_pass_at_k_of_too_few_is_refused():
    with pytest.raises(DataError, match="pass@3 of 2"):
        pass_at_k([True, False], 3)

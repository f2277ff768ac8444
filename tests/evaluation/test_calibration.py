"""Reliability and calibration error by hand, on problems that a calibration was not fitted on."""

import math

import pytest

from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.calibration import calibration_error, evaluate_calibration, reliability
from codescaler_plugin.selection.calibration import cross_fitted
from tests.selection.known import drawn_margins

pytest.importorskip("sklearn")


def test_bins_and_error_by_hand() -> None:
    probabilities, right = [0.95, 0.91, 0.55, 0.5, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0]
    low, high = reliability(probabilities, right)
    assert (low.count, low.probability, low.right) == (2, pytest.approx(0.525), 0.5)
    assert (high.count, high.probability, high.right) == (3, pytest.approx(0.9533, abs=1e-4), pytest.approx(2 / 3))
    assert calibration_error(probabilities, right) == pytest.approx((2 * 0.025 + 3 * (0.953333 - 2 / 3)) / 5, abs=1e-5)
    with pytest.raises(DataError):
        reliability([0.5], [])


def test_what_is_said_to_be_reliable_is_counted_on_problems_not_fitted_on() -> None:
    margins, right = drawn_margins(400)
    problems = [number // 4 for number in range(400)]
    found = evaluate_calibration(margins, right, problems).targets[0.8]
    taken = [row for row, p in enumerate(cross_fitted(margins, right, problems)) if p >= 0.8]
    groups = {problems[row]: [right[one] for one in taken if problems[one] == problems[row]] for row in taken}
    share = math.fsum(math.fsum(one) / len(one) for one in groups.values()) / len(groups)
    assert 20 < len(groups) < len(taken) < 400
    assert (found.examples, found.problems) == (len(taken), len(groups))
    assert found.share == pytest.approx(share, abs=1e-4)
    for end in (found.low, found.high):  # where the share is 1.96 of the end's own deviations away
        assert abs(share - end) == pytest.approx(1.96 * math.sqrt(end * (1 - end) / len(groups)), abs=1e-3)


def test_margins_of_one_problem_or_none_are_no_calibration() -> None:
    for problems in ([], ["a", "a"]):
        with pytest.raises(DataError, match=f"margins of {len(set(problems))} problems"):
            evaluate_calibration([1.0] * len(problems), [1.0] * len(problems), problems)

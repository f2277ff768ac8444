"""Avg@n and pass@k by hand."""

from typing import Any

import pytest

from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.policy import summarise

pytest.importorskip("scipy")


def rows(**passed: list[bool]) -> list[dict[str, Any]]:
    return [
        {"source": "bench", "problem_id": key, "passed": right, "status": "ok" if right else "no_block"}
        for key, verdicts in passed.items()
        for right in verdicts
    ]


def test_a_summary_counts_every_problem_once_and_the_first_n_completions():
    given = rows(a=[True, False, False, False], b=[True, True, True, True], c=[False, False, False, False, True])
    one = summarise(given, n=4, ks=[1, 2, 4])["bench"]
    assert one.average.value == pytest.approx((0.25 + 1 + 0) / 3)
    assert one.pass_at[1].value == pytest.approx(one.average.value)
    assert one.pass_at[2].value == pytest.approx((0.5 + 1 + 0) / 3)
    assert one.pass_at[4].value == pytest.approx(2 / 3)
    assert one.average.low < one.average.value < one.average.high
    assert (one.problems, one.n, one.invalid) == (3, 4, pytest.approx(7 / 12))
    with pytest.raises(DataError, match="problem 'a' has 4 completions: expected 5"):
        summarise(given, n=5, ks=[1])


def test_completions_without_a_verdict_are_named_by_kind_and_never_silent_zeros():
    given = rows(a=[True, False], b=[True, False])
    for row in given:
        row["status"] = "ok"
    given[1]["fault"], given[3]["fault"] = "missing_package", "timeout"
    one = summarise(given, n=2, ks=[1])["bench"]
    assert one.faults == {"missing_package": 1, "timeout": 1}
    assert one.average.value == 0.5  # a lower bound, as the faults say
    assert summarise(rows(a=[True, True]), n=2, ks=[1])["bench"].faults == {}

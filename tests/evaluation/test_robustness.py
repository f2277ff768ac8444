"""Edits that keep a program, against scorers that look at nothing else."""

from pathlib import Path
from statistics import fmean

import pytest

from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.robustness import evaluate_robustness
from codescaler_plugin.preference.mutations import PRAISE, PRESERVING
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.testing import FakeScorer
from tests.samples import hashed

pytest.importorskip("scipy")

PAIRS = [
    PreferencePair(
        f"Problem {number}",
        f"def f(a):\n    total = a + {number}\n    return total\n",
        f"def f(a):\n    total = a - {number}\n    return total\n",
        "rollout",
        str(number),
    )
    for number in range(30)
]


def scorer_of(praise: float) -> FakeScorer:
    """Right programs score 1 more, and praise adds to it."""
    return FakeScorer(lambda _, code: ("a + " in code) + praise * any(text in code for text in PRAISE))


def test_a_scorer_that_believes_praise_is_found_out() -> None:
    found = evaluate_robustness(PAIRS, scorer_of(5.0)).edits
    praise = found["praise"]
    assert (praise.before.value, praise.attacked.value, praise.both.value) == (1, 0, 1)
    assert (praise.shift_right.value, praise.shift_wrong.value) == (5, 5)
    assert praise.prefers_edited.value == 1
    assert found["rename"].attacked.value == 1
    assert found["rename"].shift_wrong.value == 0
    assert found["rename"].prefers_edited.value == 0.5
    assert set(found) == set(PRESERVING)


def test_numbers_are_those_of_the_scores_in_the_file(tmp_path: Path) -> None:
    import json

    output = tmp_path / "robustness.jsonl"
    found = evaluate_robustness(PAIRS, FakeScorer(hashed), output=output, limit=20)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == found.pairs == 20
    attacked, shifts = [], []
    for row in rows:
        index = 2 + 2 * row["edits"].index("padding")
        attacked.append(row["scores"][0] > row["scores"][index + 1])
        shifts.append(row["scores"][index] - row["scores"][0])
    assert found.edits["padding"].attacked.value == pytest.approx(fmean(attacked))
    assert found.edits["padding"].shift_right.value == pytest.approx(fmean(shifts))
    assert found.unaligned.value == pytest.approx(fmean(row["scores"][0] > row["scores"][-1] for row in rows))
    again = evaluate_robustness(PAIRS, FakeScorer(hashed, fails_after=0), output=output, limit=20)
    assert again == found


def test_spread_is_the_deviation_under_edits() -> None:
    steady = evaluate_robustness(PAIRS, scorer_of(0.0))
    assert steady.spread.mean == 0
    assert steady.spread.gap == 1
    assert evaluate_robustness(PAIRS, scorer_of(1.0)).spread.mean > 0.3
    noisy = evaluate_robustness(PAIRS, FakeScorer(hashed)).spread
    assert all(0 <= value <= 1 for value in (noisy.area_gap, noisy.area_gap_over_spread))


def test_no_python_is_edited_by_no_kind() -> None:
    found = evaluate_robustness([PreferencePair("P", "int x;", "int y;", "rollout")], FakeScorer(hashed))
    assert found.edits == {}
    assert found.unaligned is None
    with pytest.raises(DataError):
        evaluate_robustness([], FakeScorer(hashed))
    with pytest.raises(DataError, match="max_length"):
        evaluate_robustness(PAIRS, FakeScorer(lambda *_: None))

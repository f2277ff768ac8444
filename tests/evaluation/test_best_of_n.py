"""Best-of-N against enumeration of all draws."""

import json
from itertools import combinations
from pathlib import Path
from random import Random
from statistics import fmean

import pytest

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.evaluation.best_of_n import (
    Candidates,
    Choice,
    best_of,
    evaluate_candidates,
    leading_margins,
    read_candidates,
)
from codescaler_plugin.evaluation.pairwise import ScoredPair
from codescaler_plugin.intervals import pass_at_k
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.testing import FakeScorer
from tests.samples import hashed

pytest.importorskip("scipy")


def enumerated(scores: list[float], passed: list[bool], count: int) -> float:
    """The mean over all subsets; equal bests share."""
    draws = []
    for subset in combinations(range(len(scores)), count):
        best = max(scores[index] for index in subset)
        draws.append(fmean(passed[index] for index in subset if scores[index] == best))
    return fmean(draws)


@pytest.mark.parametrize("seed", range(5))
def test_the_estimator_is_the_mean_over_all_draws(seed: int) -> None:
    rng = Random(seed)
    scores = [float(rng.randint(0, 4)) for _ in range(9)]  # with ties
    passed = [rng.random() < 0.4 for _ in range(9)]
    for count in range(1, 10):
        assert best_of(scores, passed, count) == pytest.approx(enumerated(scores, passed, count))
        drawn = fmean(any(passed[index] for index in subset) for subset in combinations(range(9), count))
        assert pass_at_k(passed, count) == pytest.approx(drawn)
    with pytest.raises(DataError):
        best_of(scores, passed, 10)
    with pytest.raises(DataError):
        best_of(scores, passed, 0)
    for count in (0, 10):
        with pytest.raises(DataError, match="expected 1 to 9"):
            pass_at_k(passed, count)


def groups(count: int, size: int, seed: int = 0) -> list[Candidates]:
    rng = Random(seed)
    return [
        Candidates(
            str(number),
            f"Problem {number}",
            tuple("" if rng.random() < 0.1 else f"x = {index}\n" + "y\n" * rng.randint(0, 3) for index in range(size)),
            tuple(rng.random() < 0.4 for _ in range(size)),
        )
        for number in range(count)
    ]


def test_every_choice_against_enumeration() -> None:
    given = [
        Candidates(
            one.problem_id,
            one.problem,
            one.codes,
            tuple(p and bool(c) for p, c in zip(one.passed, one.codes, strict=True)),
        )
        for one in groups(6, 7)
    ]
    result = evaluate_candidates(given, FakeScorer(hashed), max_n=7)
    for count in range(1, 8):
        expected: dict[Choice, list[float]] = {"model": [], "random": [], "shortest": [], "longest": []}
        for one in given:
            passed = list(one.passed)
            valid = [bool(code) for code in one.codes]
            keys: dict[Choice, list[float]] = {
                "model": [hashed(one.problem, code) if code else -9.0 for code in one.codes],
                "random": [0.0] * 7,
                "shortest": [-len(code) if code else -999 for code in one.codes],
                "longest": [len(code) if code else -999 for code in one.codes],
            }
            assert len(valid) == 7
            for choice, scores in keys.items():
                expected[choice].append(enumerated(scores, passed, count))
        for choice, values in expected.items():
            assert result.curves[choice][count - 1] == pytest.approx(fmean(values)), (choice, count)
    assert result.curves["random"][3] == pytest.approx(fmean(fmean(one.passed) for one in given))
    assert result.invalid == sum(not code for one in given for code in one.codes)
    solved = result.table[4]
    assert solved.gains["random"].value == pytest.approx(
        solved.choices["model"].value - solved.choices["random"].value
    )
    assert sorted(result.table) == [1, 2, 4, 7]


def test_a_perfect_scorer_is_the_oracle() -> None:
    given = groups(5, 8)
    right = {(one.problem, code): passed for one in given for code, passed in zip(one.codes, one.passed, strict=True)}
    given = [
        Candidates(one.problem_id, one.problem, one.codes, tuple(right[one.problem, c] and bool(c) for c in one.codes))
        for one in given
    ]
    result = evaluate_candidates(given, FakeScorer(lambda problem, code: float(right[problem, code])))
    assert result.curves["model"] == pytest.approx(result.curves["oracle"])
    assert result.pair_accuracy.value == 1


def test_small_groups_are_left_out_and_counted(tmp_path: Path) -> None:
    given = [*groups(4, 8), *groups(1, 3, seed=1)]
    result = evaluate_candidates(given, FakeScorer(hashed), output=tmp_path / "c.jsonl")
    assert (result.max_n, result.problems, result.left_out) == (8, 4, 1)
    assert result == evaluate_candidates(given, FakeScorer(hashed, fails_after=0), output=tmp_path / "c.jsonl")
    with pytest.raises(ConfigError, match="8"):
        evaluate_candidates(given, FakeScorer(hashed), max_n=9)
    with pytest.raises(DataError):
        evaluate_candidates([], FakeScorer(hashed))


def test_margins_are_between_different_programs() -> None:
    one = Candidates("1", "P", ("a", "a", "b", "c", ""), (True, True, False, False, False))
    alone = Candidates("2", "Q", ("a", "a"), (True, True))
    margins, right, problems = leading_margins([one, alone], [[3.0, 3.0, 1.0, 2.5, None], [1.0, 1.0]])
    assert (margins, right, len(problems)) == ([0.5], [1.0], 1)


def test_rows_with_code_or_with_completions(tmp_path: Path) -> None:
    file = tmp_path / "verdicts.jsonl"
    rows = [
        {"problem": "P", "problem_id": "1", "code": "x = 1\n", "passed": True},
        {"problem": "Q", "problem_id": "2", "completion": "```python\nx = 2\n```", "passed": False},
        {"problem": "P", "problem_id": "1", "completion": "no code", "passed": False},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read_candidates(file)
    assert (first.codes, first.passed) == (("x = 1\n", ""), (True, False))
    assert second.codes == ("x = 2\n",)
    file.write_text(json.dumps({"problem": "P", "code": "x", "passed": "yes"}) + "\n")
    with pytest.raises(DataError, match=r"verdicts\.jsonl"):
        read_candidates(file)


def test_candidates_without_a_verdict_are_left_out_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "verdicts.jsonl"
    verdicts = [(True, None), (False, None), (False, "timeout"), (False, "missing_package")]
    made = [
        {"problem": "P", "code": f"x = {n}", "passed": passed, "fault": fault}
        for n, (passed, fault) in enumerate(verdicts)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    (group,) = read_candidates(file)
    assert (group.codes, group.passed, group.without_verdict) == (("x = 0", "x = 1"), (True, False), 2)
    result = evaluate_candidates([group], FakeScorer(lambda _, code: float(code == "x = 0")))
    assert (result.candidates, result.without_verdict) == (2, 2)
    file.write_text("".join(json.dumps(row) + "\n" for row in made[2:]))
    with pytest.raises(DataError, match="no candidates with a verdict: 2 rows have a fault"):
        read_candidates(file)


def test_a_problem_is_one_whatever_white_space_its_rows_have(tmp_path: Path) -> None:
    file = tmp_path / "verdicts.jsonl"
    made = [("Add one.", "1"), ("Add\n  one. ", "1"), ("Add one.", "2"), ("Add two.", "1")]
    file.write_text(
        "".join(
            json.dumps({"problem": text, "problem_id": name, "code": f"x = {n}", "passed": True}) + "\n"
            for n, (text, name) in enumerate(made)
        )
    )
    found = read_candidates(file)
    assert [(one.problem, one.problem_id, len(one.codes)) for one in found] == [
        ("Add one.", "1", 2), ("Add one.", "2", 1), ("Add two.", "1", 1)
    ]  # fmt: skip
    pairs = [PreferencePair(text, "x = 1", "x = 2", "rollout", name) for text, name in made]
    assert len({ScoredPair(pair, 1.0, 0.0).problem for pair in pairs}) == 3


def test_a_fault_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_text(json.dumps({"problem": "P", "code": "x = 1", "passed": False, "fault": "tired"}) + "\n")
    with pytest.raises(DataError, match="line 1: fault is 'tired'"):
        read_candidates(path)

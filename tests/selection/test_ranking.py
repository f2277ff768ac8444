"""Ranking and abstention, against known scores."""

import math
import random
from collections.abc import Iterator
from statistics import fmean

import pytest

from codescaler_plugin import CodeScaler, CodeScalerConfig, ConfigError, DataError, ScorerError, best_of_n
from codescaler_plugin.records import Judgement, Status
from codescaler_plugin.selection.planning import fit_margins, is_right
from codescaler_plugin.selection.ranking import chosen, rank, rank_groups
from codescaler_plugin.selection.records import Outcome
from codescaler_plugin.testing import FakeScorer
from tests.samples import fenced
from tests.selection.known import PROBLEM, SURE, choose, order, scaler_of, synthetic


def test_best_score_is_first_and_invalid_completions_are_last() -> None:
    scaler = scaler_of({"a = 1": -3.0, "b = 2": -1.0, "c = 3": -2.0})
    completions = ["no code", fenced("a = 1"), fenced("b = 2"), fenced("c = 3"), fenced("def (")]
    selection = best_of_n(scaler, PROBLEM, completions)
    assert order(selection) == [2, 3, 1, 0, 4]
    assert selection.best is selection.ranked[0]
    assert (selection.outcome, selection.margin, selection.executions) == (Outcome.CHOSEN, pytest.approx(1.0), 0)
    assert selection.explanation == "candidate 2: 1.0000 above candidate 3"
    assert [one.judgement.status for one in selection.ranked[3:]] == [Status.NO_BLOCK, Status.SYNTAX_ERROR]
    assert selection.best.judgement.code == "b = 2\n"


def test_last_valid_block_is_the_code_unless_told_otherwise() -> None:
    completion = fenced("draft = 1") + fenced("final = 2")
    scaler = scaler_of({"draft = 1": 0.0, "final = 2": 0.0})
    assert best_of_n(scaler, PROBLEM, [completion]).best.judgement.code == "final = 2\n"
    assert best_of_n(scaler, PROBLEM, [completion], extraction="single").outcome is Outcome.NONE_VALID
    assert scaler.config.extraction == "single"  # the caller's own settings stay


def test_duplicates_stand_together_and_the_margin_is_to_another_program() -> None:
    scores = {"x = 1": 2.0, "x=1  # again": 1.0, "y = 2": 0.5}
    selection = choose(scores, ["y = 2", "x=1  # again", "x = 1", "x = 1"])
    assert order(selection) == [2, 3, 1, 0]
    assert [one.duplicates for one in selection.ranked] == [3, 3, 3, 1]
    assert [one.duplicate_of for one in selection.ranked] == [None, 2, 2, None]
    assert selection.margin == pytest.approx(1.5)
    assert [one.index for one in selection.programs] == [2, 0]


def test_self_consistency_multiplies_the_odds_by_the_number_of_duplicates() -> None:
    scores = {"x = 1": 1.0, "y = 2": 0.0}
    completions = ["x = 1", *["y = 2"] * 3]
    alone, together = choose(scores, completions), choose(scores, completions, self_consistency=1.0)
    assert (alone.best.index, together.best.index) == (0, 1)
    assert together.best.rank_score == pytest.approx(math.log(3))
    assert together.margin == pytest.approx(math.log(3) - 1)


def test_other_languages_are_equal_by_text_alone() -> None:
    judgements = [Judgement(1.0, 1.0, Status.OK, code) for code in ("a = 1", "a=1", "a = 1")]
    assert [one.duplicates for one in rank(["", "", ""], judgements, language="python")] == [3, 3, 3]
    assert sorted(one.duplicates for one in rank(["", "", ""], judgements, language="ruby")) == [1, 2, 2]


def test_tie_goes_to_the_program_that_more_wrote_then_to_the_earlier_and_is_explained() -> None:
    scores = {"x = 1": 1.0, "y = 2": 1.0, "z = 3": 1.00001}
    selection = choose(scores, ["x = 1", "y = 2", "y = 2"])
    assert selection.best.index == 1
    assert selection.explanation == "candidates 1 and 0 are tied at 1.0000: more candidates wrote the first"
    selection = choose(scores, ["x = 1", "z = 3"])
    assert (selection.best.index, selection.margin) == (0, 0.0)  # within the noise of a forward pass
    assert selection.explanation == "candidates 0 and 1 are tied at 1.0000: the first was given earlier"


def test_group_without_code_is_reported_with_its_reasons() -> None:
    selection = best_of_n(scaler_of({}), PROBLEM, ["no", "nor", fenced("def (")])
    assert (selection.outcome, selection.best) == (Outcome.NONE_VALID, None)
    assert selection.explanation == "none of 3 candidates has valid code: 2 no_block, 1 syntax_error"
    assert best_of_n(scaler_of({}), PROBLEM, []).explanation == "no candidates"


def test_group_without_scores_is_unscored_and_one_without_a_score_is_behind_those_with() -> None:
    selection = choose({"x = 1": None, "y = 2": -9.0}, ["x = 1", "y = 2"])
    assert (order(selection), selection.outcome, selection.margin) == ([1, 0], Outcome.CHOSEN, None)
    selection = choose({"x = 1": None}, ["x = 1"])
    assert (selection.outcome, selection.best) == (Outcome.UNSCORED, None)


def test_failing_model_is_an_error() -> None:
    with pytest.raises(ScorerError, match="out of memory"):
        best_of_n(CodeScaler(FakeScorer(fails_after=0), config=CodeScalerConfig()), PROBLEM, [fenced("x = 1")])


@pytest.mark.parametrize("self_consistency", [-1.0, math.nan, math.inf])
def test_self_consistency_that_makes_no_sense_is_an_error(self_consistency: float) -> None:
    with pytest.raises(ConfigError, match="self_consistency is"):
        choose({"x = 1": 1.0}, ["x = 1"], self_consistency=self_consistency)


def test_candidates_given_as_one_string_are_an_error() -> None:
    with pytest.raises(DataError, match="expected a sequence"):
        best_of_n(scaler_of({}), PROBLEM, fenced("x = 1"))


def test_many_problems_stream_in_their_order() -> None:
    taken: list[int] = []

    def groups() -> Iterator[tuple[str, list[str]]]:
        for number in range(100):
            taken.append(number)
            yield f"problem {number}", [fenced(f"x = {number}"), fenced("x = 1000")] * 4

    scaler = scaler_of({f"x = {number}": float(number) for number in (*range(100), 1000)})
    found = rank_groups(scaler, groups())
    first = next(found)
    assert len(taken) < 100
    selections = [first, *found]
    assert [one.best.index for one in selections] == [1] * 100
    assert [one.margin for one in selections] == [1000.0 - number for number in range(100)]
    assert isinstance(scaler.scorer, FakeScorer)
    assert ("problem 7", "x = 7\n") in scaler.scorer.items
    taken.clear()
    empty = rank_groups(scaler, (taken.append(number) or ("problem", []) for number in range(10_000)))
    assert next(empty).outcome is Outcome.NONE_VALID
    assert len(taken) < 1000  # problems without candidates stream too


def test_order_does_not_depend_on_the_order_of_the_candidates() -> None:
    rng = random.Random(0)
    scores = {f"x = {number}": rng.random() * 10 for number in range(6)}
    completions = [f"x = {rng.randrange(6)}" for _ in range(12)]
    expected = [one.judgement.code for one in choose(scores, completions, self_consistency=0.5).ranked]
    for _ in range(5):
        rng.shuffle(completions)
        assert [one.judgement.code for one in choose(scores, completions, self_consistency=0.5).ranked] == expected


def test_abstains_below_the_probability_and_says_why() -> None:
    scores = {"x = 1": 2.0, "y = 2": 0.0}
    settings = {"calibration": SURE, "abstain_below": 0.9}
    selection = choose(scores, ["x = 1", "y = 2"], **settings)
    assert (selection.outcome, selection.probability) == (Outcome.CHOSEN, pytest.approx(0.9))
    selection = choose({**scores, "x = 1": 1.0}, ["x = 1", "y = 2"], **settings)
    assert (selection.outcome, selection.best) == (Outcome.ABSTAINED, None)
    assert selection.explanation == "candidate 0 is right with probability 0.600, below 0.9"
    selection = choose(scores, ["x = 1", "x = 1"], **settings)
    assert selection.explanation == "no other program to compare candidate 0 with"


@pytest.mark.parametrize("settings", [{"abstain_below": 0.5}, {"abstain_below": 1.5, "calibration": SURE}])
def test_abstention_without_a_calibration_or_probability_is_an_error(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="abstain_below"):
        choose({}, [], **settings)


def test_promised_precision_of_abstention_holds_on_held_out_problems() -> None:
    fitted = fit_margins(synthetic(1000, 0))
    held_out = [(chosen(one.ranked, fitted, 0.85), passed) for one, passed in synthetic(2000, 1)]
    answered = [(one, passed) for one, passed in held_out if one.outcome is Outcome.CHOSEN]
    assert 200 < len(answered) < 1800
    precision = fmean(is_right(one, passed) for one, passed in answered)
    promised = fmean(one.probability for one, _ in answered)
    error = 2 * math.sqrt(promised * (1 - promised) / len(answered))
    assert precision > 0.85 - error
    assert abs(precision - promised) < error + 0.02  # and of the calibration itself, on 1000 problems
    assert precision > fmean(is_right(one, passed) for one, passed in synthetic(2000, 1)) + 0.05

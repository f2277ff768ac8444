"""Ranking, cascade, plan and adaptive sampling, against known scores and real runs in the sandbox."""

import asyncio
import itertools
import math
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from codescaler_plugin import (
    CodeScaler,
    CodeScalerConfig,
    ConfigError,
    DataError,
    ScorerError,
    best_of_n,
    cascade,
    load_scorer,
)
from codescaler_plugin.execution.executor import Job
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import (
    CallTest,
    Fault,
    Judgement,
    Outcome,
    Problem,
    ScriptTest,
    Selection,
    Status,
    Verdict,
)
from codescaler_plugin.scoring import Unscored
from codescaler_plugin.selection.adaptive import (
    Stopping,
    expected_gain,
    list_candidates,
    sample_adaptively,
)
from codescaler_plugin.selection.calibration import Calibration, read_calibration
from codescaler_plugin.selection.cascade import CascadeConfig, decide_by_tests
from codescaler_plugin.selection.planning import (
    Costs,
    fit_margins,
    is_right,
    keep_order,
    measured_ways,
    plan,
    priced,
    read_plans,
    replay,
    with_plans,
)
from codescaler_plugin.selection.ranking import chosen, rank, rank_groups
from codescaler_plugin.testing import FakeScorer
from tests.samples import fenced

PROBLEM = "Write solve(n): n plus one."
SURE = Calibration("isotonic", 10, 5, knots=((0.0, 0.5), (1.0, 0.6), (2.0, 0.9), (4.0, 0.98)))


class Table:
    """A reward model that is a table from code to score; keeps what it was asked."""

    def __init__(self, scores: dict[str, float | None]) -> None:
        self.scores = scores
        self.asked: list[tuple[str, str]] = []

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        self.asked += items
        return [self.scores[code.strip()] for _, code in items]


class Known:
    """An executor that has a verdict for each code; keeps what it ran, round by round."""

    def __init__(self, passed: dict[str, tuple[int, int]]) -> None:
        self.passed = passed
        self.rounds: list[list[str]] = []

    def run(self, jobs: Sequence[Job], *, progress: object = None) -> list[Verdict]:
        self.rounds.append([code.strip() for code, _ in jobs])
        counts = [self.passed[code.strip()] for code, _ in jobs]
        return [Verdict(right == total, "" if right == total else "wrong", right, total) for right, total in counts]

    @property
    def ran(self) -> list[str]:
        return list(itertools.chain.from_iterable(self.rounds))


def scaler_of(scores: dict[str, float | None]) -> CodeScaler:
    return CodeScaler(Table(scores), config=CodeScalerConfig(model="table"))


def choose(scores: dict[str, float | None], answers: Sequence[str], **settings: object) -> Selection:
    return best_of_n(scaler_of(scores), PROBLEM, [fenced(one) for one in answers], **settings)


def order(selection: Selection) -> list[int]:
    return [one.index for one in selection.ranked]


TESTS = Problem("p", PROBLEM, (ScriptTest("assert solve(1) == 2"),), "solve")


# Ranking


def test_best_score_is_first_and_invalid_answers_are_last() -> None:
    scaler = scaler_of({"a = 1": -3.0, "b = 2": -1.0, "c = 3": -2.0})
    answers = ["no code", fenced("a = 1"), fenced("b = 2"), fenced("c = 3"), fenced("def (")]
    selection = best_of_n(scaler, PROBLEM, answers)
    assert order(selection) == [2, 3, 1, 0, 4]
    assert selection.best is selection.ranked[0]
    assert (selection.outcome, selection.margin, selection.executions) == (Outcome.CHOSEN, pytest.approx(1.0), 0)
    assert selection.explanation == "candidate 2: 1.0000 above candidate 3"
    assert [one.judgement.status for one in selection.ranked[3:]] == [Status.NO_BLOCK, Status.SYNTAX_ERROR]
    assert selection.best.judgement.code == "b = 2\n"


def test_last_usable_block_is_the_code_unless_told_otherwise() -> None:
    answer = fenced("draft = 1") + fenced("final = 2")
    scaler = scaler_of({"draft = 1": 0.0, "final = 2": 0.0})
    assert best_of_n(scaler, PROBLEM, [answer]).best.judgement.code == "final = 2\n"
    assert best_of_n(scaler, PROBLEM, [answer], extraction="single").outcome is Outcome.NONE_VALID
    assert scaler.config.extraction == "single"  # the caller's own settings stay


def test_copies_stand_together_and_the_margin_is_to_another_program() -> None:
    scores = {"x = 1": 2.0, "x=1  # again": 1.0, "y = 2": 0.5}
    selection = choose(scores, ["y = 2", "x=1  # again", "x = 1", "x = 1"])
    assert order(selection) == [2, 3, 1, 0]
    assert [one.duplicates for one in selection.ranked] == [3, 3, 3, 1]
    assert [one.duplicate_of for one in selection.ranked] == [None, 2, 2, None]
    assert selection.margin == pytest.approx(1.5)
    assert [one.index for one in selection.programs] == [2, 0]


def test_agreement_multiplies_the_odds_by_the_number_of_copies() -> None:
    scores = {"x = 1": 1.0, "y = 2": 0.0}
    answers = ["x = 1", *["y = 2"] * 3]
    alone, together = choose(scores, answers), choose(scores, answers, self_consistency=1.0)
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
def test_agreement_that_makes_no_sense_is_an_error(self_consistency: float) -> None:
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
    assert ("problem 7", "x = 7\n") in scaler.scorer.asked
    taken.clear()
    empty = rank_groups(scaler, (taken.append(number) or ("problem", []) for number in range(10_000)))
    assert next(empty).outcome is Outcome.NONE_VALID
    assert len(taken) < 1000  # problems without candidates stream too


def test_order_does_not_depend_on_the_order_of_the_candidates() -> None:
    rng = random.Random(0)
    scores = {f"x = {number}": rng.random() * 10 for number in range(6)}
    answers = [f"x = {rng.randrange(6)}" for _ in range(12)]
    expected = [one.judgement.code for one in choose(scores, answers, self_consistency=0.5).ranked]
    for _ in range(5):
        rng.shuffle(answers)
        assert [one.judgement.code for one in choose(scores, answers, self_consistency=0.5).ranked] == expected


# Abstention


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


def synthetic(count: int, seed: int, candidates: int = 8) -> list[tuple[Selection, list[bool]]]:
    """Problems of unequal hardness; a right program scores higher by 1.5 with a noise of 1."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        ease = rng.random()
        passed = [rng.random() < ease for _ in range(candidates)]
        judgements = [
            Judgement(1.0, rng.gauss(1.5 * right, 1.0), Status.OK, f"x = {place}\n")
            for place, right in enumerate(passed)
        ]
        found.append((chosen(rank([""] * candidates, judgements)), passed))
    return found


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


# Cascade


def test_confident_choice_runs_no_test() -> None:
    executor = Known({})
    selection = decide_by_tests(
        [choose({"x = 1": 5.0, "y = 2": 0.0}, ["x = 1", "y = 2"])],
        [TESTS],
        executor=executor,
        config=CascadeConfig(SURE, 0.95),
    )[0]
    assert (selection.outcome, selection.executions, executor.ran) == (Outcome.CHOSEN, 0, [])
    assert selection.best.index == 0
    assert "taken untested" in selection.explanation


def test_tests_run_in_the_order_of_scores_until_one_passes_and_once_for_copies() -> None:
    executor = Known({"x = 1": (0, 2), "y = 2": (2, 2), "z = 3": (2, 2)})
    scores = {"x = 1": 3.0, "x  =  1": 0.0, "y = 2": 2.0, "z = 3": 1.0}
    ranked = choose(scores, ["z = 3", "y = 2", "x = 1", "x  =  1", "no ("])
    selection = decide_by_tests([ranked], [TESTS], executor=executor, config=CascadeConfig(SURE, 0.95))[0]
    assert executor.ran == ["x = 1", "y = 2"]
    assert (selection.best.index, selection.executions) == (1, 2)
    assert order(selection) == [1, 0, 2, 3, 4]  # passed, untested, failed with its copy, no code
    assert selection.ranked[3].verdict.passed is False
    assert selection.explanation == "candidate 1 passes all tests; 2 programs run"


def test_tests_alone_run_in_the_order_given_and_need_no_scores() -> None:
    scaler = CodeScaler(Unscored(), config=CodeScalerConfig(model="table"))
    answers = [fenced(code) for code in ("a = 1", "b = 2", "b = 2", "c = 3")]
    executor = Known({"a = 1": (0, 1), "b = 2": (1, 1)})
    plain = keep_order(best_of_n(scaler, PROBLEM, answers))
    (selection,) = decide_by_tests([plain], [TESTS], executor=executor)
    assert executor.ran == ["a = 1", "b = 2"]
    assert (order(selection), selection.executions) == ([1, 2, 3, 0], 2)


def test_all_failed_is_an_outcome_of_its_own() -> None:
    executor = Known({"x = 1": (0, 2), "y = 2": (1, 2)})
    ranked = choose({"x = 1": 3.0, "y = 2": 2.0}, ["x = 1", "y = 2"])
    selection = decide_by_tests([ranked], [TESTS], executor=executor)[0]
    assert (selection.outcome, selection.best, selection.executions) == (Outcome.ALL_FAILED, None, 2)


def test_budget_bounds_the_runs_and_the_best_untested_program_is_taken() -> None:
    executor = Known({"x = 1": (0, 2)})
    ranked = choose({"x = 1": 3.0, "y = 2": 2.0, "z = 3": 1.0}, ["x = 1", "y = 2", "z = 3"])
    selection = decide_by_tests([ranked], [TESTS], executor=executor, config=CascadeConfig(budget=1))[0]
    assert (selection.best.index, selection.executions) == (1, 1)
    assert "budget" in selection.explanation


def test_what_is_left_without_a_score_is_not_chosen_untested() -> None:
    ranked = choose({"x = 1": 3.0, "y = 2": None}, ["x = 1", "y = 2"])
    executor = Known({"x = 1": (0, 2), "y = 2": (2, 2)})
    selection = decide_by_tests([ranked], [TESTS], executor=executor, config=CascadeConfig(budget=1))[0]
    assert (selection.outcome, selection.best) == (Outcome.UNSCORED, None)
    assert selection.explanation.endswith("the budget of tests is used up; 1 program run")
    assert decide_by_tests([ranked], [TESTS], executor=executor)[0].best.index == 1


def test_as_many_problems_as_selections_are_needed() -> None:
    with pytest.raises(DataError, match="1 selections and 2 problems"):
        decide_by_tests([choose({"x = 1": 1.0}, ["x = 1"])], [TESTS] * 2, executor=Known({}))


def test_no_sandbox_is_started_where_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(**settings: object) -> None:
        raise AssertionError(settings)

    monkeypatch.setattr("codescaler_plugin.selection.cascade.Sandbox", started)
    scaler, config = scaler_of({"x = 1": 5.0, "y = 2": 0.0}), CascadeConfig(SURE, 0.95)
    selection = cascade(scaler, PROBLEM, [fenced("x = 1"), fenced("y = 2")], TESTS, config=config)
    assert (selection.best.index, selection.executions) == (0, 0)
    with pytest.raises(AssertionError):
        cascade(scaler, PROBLEM, [fenced("x = 1"), fenced("y = 2")], TESTS)


def test_after_a_failure_only_a_calibration_of_its_own_is_trusted() -> None:
    scores = {"x = 1": 3.0, "y = 2": 2.9, "z = 3": -9.0}
    verdicts = {"x = 1": (0, 1), "y = 2": (0, 1), "z = 3": (1, 1)}
    ranked = choose(scores, list(scores))
    goes_on, trusts = Known(verdicts), Known(verdicts)
    last = decide_by_tests([ranked], [TESTS], executor=goes_on, config=CascadeConfig(SURE, 0.95))[0]
    assert (goes_on.ran, last.best.index) == (list(scores), 2)
    config = CascadeConfig(SURE, 0.95, after_failure=SURE)
    second = decide_by_tests([ranked], [TESTS], executor=trusts, config=config)[0]
    assert (trusts.ran, second.best.index) == (["x = 1"], 1)


def test_generated_tests_prove_nothing_so_the_largest_share_wins() -> None:
    executor = Known({"x = 1": (1, 4), "y = 2": (3, 4), "z = 3": (2, 4)})
    ranked = choose({"x = 1": 3.0, "y = 2": 2.0, "z = 3": 1.0}, ["x = 1", "y = 2", "z = 3"])
    selection = decide_by_tests([ranked], [TESTS], executor=executor, config=CascadeConfig(generated=True))[0]
    assert (order(selection), selection.outcome) == ([1, 2, 0], Outcome.CHOSEN)
    assert selection.explanation == "candidate 1 passes 3 of 4 generated tests; 3 programs run"
    executor = Known({"x = 1": (3, 4), "y = 2": (4, 4)})
    selection = decide_by_tests([ranked], [TESTS], executor=executor, config=CascadeConfig(generated=True))[0]
    assert (order(selection), selection.explanation) == ([1, 0, 2], "candidate 1 passes all tests; 2 programs run")
    executor = Known({"x = 1": (0, 4), "y = 2": (1, 4)})
    for budget, expected in ((1, [1, 2, 0]), (2, [1, 2, 0])):  # passing none is worse than not being run
        config = CascadeConfig(generated=True, budget=budget)
        selection = decide_by_tests([ranked], [TESTS], executor=executor, config=config)[0]
        assert (order(selection), selection.executions) == (expected, budget)


def test_problems_are_tested_in_common_rounds() -> None:
    executor = Known({"x = 1": (0, 1), "y = 2": (1, 1)})
    ranked = choose({"x = 1": 1.0, "y = 2": 0.0}, ["x = 1", "y = 2"])
    nothing = best_of_n(scaler_of({}), PROBLEM, ["no"])
    found = decide_by_tests([ranked, nothing, ranked], [TESTS] * 3, executor=executor)
    assert executor.rounds == [["x = 1", "x = 1"], ["y = 2", "y = 2"]]
    assert [one.outcome for one in found] == [Outcome.CHOSEN, Outcome.NONE_VALID, Outcome.CHOSEN]


def test_cascade_runs_model_written_code_in_the_sandbox() -> None:
    right, wrong = "def solve(n):\n    return n + 1", "def solve(n):\n    return n"
    ends = "import os\ndef solve(n):\n    os._exit(0)"
    scaler = scaler_of({right: 0.0, wrong: 1.0, ends: 2.0})
    tests = Problem("p", PROBLEM, (CallTest((1,), 2), CallTest((5,), 6)), "solve")
    with Sandbox(workers=1) as sandbox:
        selection = cascade(scaler, PROBLEM, [fenced(code) for code in (wrong, right, ends)], tests, executor=sandbox)
    assert (selection.best.index, selection.executions) == (1, 3)
    assert selection.ranked[-1].verdict.passed is False


@pytest.mark.parametrize("settings", [{"target": 0.0}, {"target": math.nan}, {"budget": -1}])
def test_settings_that_make_no_sense_are_errors(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        CascadeConfig(**settings)


# Plan


def test_plan_follows_the_costs() -> None:
    labelled = synthetic(200, 2)
    free_tests = plan(labelled, Costs(score=1.0, test=0.0, wrong=10.0))
    assert free_tests[0].way == "tests"
    dear_tests = plan(labelled, Costs(score=0.0, test=100.0, wrong=10.0))
    assert dear_tests[0].way == "rm"
    between = plan(labelled, Costs(score=0.0, test=1.0, wrong=40.0))
    assert between[0].way == "cascade"
    assert [one.cost for one in between] == sorted(one.cost for one in between)


def test_plan_counts_what_a_run_would_count() -> None:
    labelled = synthetic(200, 3)
    by_way = {(one.way, one.target): one for one in plan(labelled, Costs(0.5, 2.0, 7.0))}
    oracle = fmean(any(passed) for _, passed in labelled)
    rm, tests, always = by_way["rm", None], by_way["tests", None], by_way["cascade", 1.01]
    assert rm.accuracy == fmean(passed[one.best.index] for one, passed in labelled)
    assert rm.executions == 0
    assert rm.cost == pytest.approx(0.5 * 8 + 7 * (1 - rm.accuracy))
    assert tests.accuracy == always.accuracy == oracle
    until = fmean(passed.index(True) + 1 if any(passed) else 8 for _, passed in labelled)
    assert tests.executions == pytest.approx(until)
    assert tests.cost == pytest.approx(2 * until + 7 * (1 - oracle))
    assert always.executions < tests.executions
    assert always.cost == pytest.approx(0.5 * 8 + 2 * always.executions + 7 * (1 - oracle))


def test_plans_survive_their_file_and_are_priced_anew(tmp_path: Path) -> None:
    labelled, costs, file = synthetic(60, 3), Costs(0.5, 2.0, 7.0), tmp_path / "calibration.json"
    fitted = fit_margins(labelled, model="table")
    file.write_text(with_plans(fitted, measured_ways(labelled)))
    assert read_calibration(file) == fitted
    assert priced(read_plans(file), costs) == plan(labelled, costs)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("{}", "KeyError: 'plans'"),
        ('{"plans": []}', "no plans"),
        ('{"plans": [{"way": "rm"}]}', "missing"),
        ('{"plans": [{"way": "luck", "target": null, "accuracy": 1, "executions": 1, "scored": 1}]}', "way of rm"),
        ('{"plans": [{"way": "cascade", "target": null, "accuracy": 1, "executions": 1, "scored": 1}]}', "target"),
        ('{"plans": [{"way": "rm", "target": null, "accuracy": 2, "executions": 1, "scored": 1}]}', "accuracy in"),
        ('{"plans": [{"way": "rm", "target": null, "accuracy": "1", "executions": 1, "scored": 1}]}', "TypeError"),
    ],
)
def test_file_without_sound_plans_is_named_with_the_next_step(tmp_path: Path, found: str, said: str) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(found)
    with pytest.raises(DataError, match=r"calibration\.json.*" + said) as error:
        read_plans(file)
    assert "--calibrate" in str(error.value)
    with pytest.raises(ConfigError, match=r"missing\.json"):
        read_plans(tmp_path / "missing.json")


def test_replay_is_the_cascade_itself() -> None:
    labelled = synthetic(30, 4)
    config = CascadeConfig(SURE, 0.7, budget=3)
    for (selection, passed), replayed in zip(labelled, replay(labelled, config), strict=True):
        executor = Known({f"x = {place}": (int(right), 1) for place, right in enumerate(passed)})
        (run,) = decide_by_tests([selection], [TESTS], executor=executor, config=config)
        assert (order(run), run.outcome, run.executions) == (order(replayed), replayed.outcome, replayed.executions)


def test_plan_of_unequal_lengths_or_of_one_problem_is_an_error() -> None:
    (one, passed), *_ = synthetic(1, 5)
    with pytest.raises(DataError, match="8 candidates and 7 verdicts"):
        plan([(one, passed[:-1])], Costs(1, 1, 1))
    with pytest.raises(DataError, match="1 problems"):
        plan([(one, passed)], Costs(1, 1, 1))
    for cost in (-1, math.nan, math.inf):
        with pytest.raises(ConfigError, match="finite costs of at least 0"):
            Costs(1, cost, 1)


# Adaptive sampling


def test_expected_gain_of_exponential_scores_is_what_one_more_adds() -> None:
    """Brute force: how much better the best of n + 1 is than the best of n, for tails that fall as e^-x."""
    rng = random.Random(0)
    n, estimated, added = 16, [], []
    for _ in range(4000):
        scores = [rng.expovariate(2.0) for _ in range(n + 1)]
        estimated.append(expected_gain(scores[:n]) * 2)  # at margin 0 the first is right with probability 1/2
        added.append(math.tanh(max(0.0, scores[n] - max(scores[:n])) / 2))
    assert fmean(estimated) == pytest.approx(fmean(added), rel=0.15)


def test_expected_gain_falls_with_samples_and_with_the_margin_and_counts_what_has_no_score() -> None:
    few, many = [0.0, 1.0, 2.0, 4.0], [0.0, 1.0, 2.0, 4.0] * 4
    assert expected_gain(many) < expected_gain(few)
    assert expected_gain([*few, None, None]) == pytest.approx(expected_gain(few) * 5 / 7)
    assert expected_gain(few, 3.0) == pytest.approx(expected_gain(few) * 2 / (1 + math.exp(3.0)))
    assert expected_gain([1.0, 1.0, 1.0]) == 0
    assert expected_gain([None, 1.0]) is None
    assert expected_gain(few, 1e6) == pytest.approx(0, abs=1e-12)


class Source:
    """An asynchronous generator that counts what was taken and whether it was closed."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers, self.taken, self.closed = answers, 0, False

    async def candidates(self) -> AsyncIterator[str]:
        try:
            for answer in self.answers:
                self.taken += 1
                yield answer
        finally:
            self.closed = True


def sample(scores: Sequence[float], **rule: float) -> tuple[object, Source]:
    codes = [f"x = {number}" for number in range(len(scores))]
    source = Source([fenced(code) for code in codes])
    scaler = scaler_of(dict(zip(codes, scores, strict=True)))
    return asyncio.run(sample_adaptively(scaler, PROBLEM, source.candidates(), stopping=Stopping(**rule))), source


def test_sampling_stops_where_one_more_is_not_worth_it() -> None:
    found, source = sample([0.0, 0.1, 0.2, 6.0, *[0.0] * 60], cost=0.01, min_samples=4, batch=2)
    assert (found.samples, found.stopped, source.taken, source.closed) == (4, "not worth it", 4, True)
    assert found.gain < 0.01
    assert found.selection.best.index == 3


def test_sampling_goes_on_where_scores_are_close_and_spread() -> None:
    rng = random.Random(1)
    scores = [rng.gauss(0, 3) for _ in range(64)]
    dear, _ = sample(scores, cost=0.05)
    cheap, _ = sample(scores, cost=0.001)
    free, source = sample(scores, cost=0.0)
    assert dear.samples < cheap.samples < free.samples == 64
    assert (free.stopped, source.closed) == ("max_samples", True)


def test_generator_that_ends_is_exhausted() -> None:
    found, _ = sample([1.0, 2.0, 3.0], cost=0.0, min_samples=4)
    assert (found.samples, found.stopped, found.selection.best.index) == (3, "exhausted", 2)
    nothing, _ = sample([])
    assert (nothing.samples, nothing.gain, nothing.selection.outcome) == (0, None, Outcome.NONE_VALID)


def test_generator_is_closed_when_judging_fails() -> None:
    source = Source([fenced("x = 1")] * 9)
    scaler = CodeScaler(FakeScorer(fails_after=0), config=CodeScalerConfig())
    with pytest.raises(ScorerError):
        asyncio.run(sample_adaptively(scaler, PROBLEM, source.candidates()))
    assert source.closed


def test_plain_generator_is_taken_as_far_as_needed() -> None:
    taken = []

    def answers() -> Iterator[str]:
        for number in itertools.count():
            taken.append(number)
            yield fenced("x = 1" if number % 2 else "y = 2")

    scaler = scaler_of({"x = 1": 9.0, "y = 2": 0.0})
    found = asyncio.run(
        sample_adaptively(
            scaler, PROBLEM, list_candidates(answers()), stopping=Stopping(cost=0.1, min_samples=3, batch=1)
        )
    )
    assert (found.samples, len(taken)) == (3, 3)


def test_candidates_that_are_not_asynchronous_are_an_error_with_the_next_step() -> None:
    with pytest.raises(DataError, match="are a list: expected an asynchronous iterator; list_candidates"):
        asyncio.run(sample_adaptively(scaler_of({}), PROBLEM, [fenced("x = 1")]))


def test_candidate_that_is_no_text_is_named_by_its_place_among_all() -> None:
    answers = [fenced("x = 1")] * 5 + [7]
    rule = Stopping(cost=0.0, min_samples=4, batch=4)
    with pytest.raises(DataError, match="candidate 5"):
        asyncio.run(sample_adaptively(scaler_of({"x = 1": 1.0}), PROBLEM, list_candidates(answers), stopping=rule))


def test_pipeline_of_transformers_is_a_generator_of_candidates() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    from codescaler_plugin.builtin import POLICY

    torch.manual_seed(0)
    words = AutoTokenizer.from_pretrained(POLICY)
    model = AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32)
    pipe = pipeline("text-generation", model=model, tokenizer=words, device="cpu")
    problem = "Write solve(xs). From a list xs of integers, return the sum."
    turn = [{"role": "user", "content": problem}]
    answers = (
        pipe(turn, do_sample=True, max_new_tokens=64)[0]["generated_text"][-1]["content"] for _ in itertools.count()
    )
    found = asyncio.run(
        sample_adaptively(
            CodeScaler(load_scorer("builtin")),
            problem,
            list_candidates(answers),
            stopping=Stopping(min_samples=2, max_samples=3),
        )
    )
    assert 2 <= found.samples <= 3
    assert all("solve" in one.completion for one in found.selection.ranked)


@pytest.mark.parametrize(
    "rule", [{"cost": -1.0}, {"cost": math.nan}, {"min_samples": 0}, {"min_samples": 9, "max_samples": 8}]
)
def test_stopping_that_makes_no_sense_is_an_error(rule: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Stopping(**rule)


class Judges:
    """Gives each code its verdict and counts what was run."""

    def __init__(self, verdicts: dict[str, Verdict]) -> None:
        self.verdicts, self.ran = verdicts, []
        self.ran: list[str]

    def run(self, jobs: Sequence[Job], *, progress: object = None) -> list[Verdict]:
        self.ran += [code.strip() for code, _ in jobs]
        return [self.verdicts[code.strip()] for code, _ in jobs]


UNJUDGED = Verdict(False, "MissingPackage", 0, 1, fault=Fault.MISSING_PACKAGE)
FAILS, PASSES = Verdict(False, "WrongAnswer", 0, 1), Verdict(True, "", 1, 1)


def tested(*verdicts: Verdict, **settings: Any) -> tuple[Selection, list[str]]:
    codes = [f"x = {n}" for n in range(len(verdicts))]
    ranked = choose({code: float(-n) for n, code in enumerate(codes)}, codes)
    judges = Judges(dict(zip(codes, verdicts, strict=True)))
    (made,) = decide_by_tests([ranked], [TESTS], executor=judges, config=CascadeConfig(**settings))
    return made, judges.ran


def test_a_program_on_which_the_tests_gave_no_verdict_is_neither_passed_nor_failed() -> None:
    passed, ran = tested(UNJUDGED, FAILS, PASSES)
    assert (order(passed), passed.outcome, ran) == ([2, 0, 1], Outcome.CHOSEN, ["x = 0", "x = 1", "x = 2"])
    assert passed.explanation == "candidate 2 passes all tests; 3 programs run, no verdict: missing_package 1"
    none, _ = tested(FAILS, UNJUDGED, FAILS)
    assert (order(none), none.outcome) == ([1, 0, 2], Outcome.CHOSEN)
    assert "its tests gave no verdict (missing_package)" in none.explanation
    assert tested(FAILS, FAILS)[0].outcome is Outcome.ALL_FAILED
    generated, _ = tested(UNJUDGED, FAILS, generated=True)
    assert order(generated) == [0, 1]


def test_a_fault_is_no_evidence_so_the_confidence_stays_what_it_was() -> None:
    made, _ = tested(UNJUDGED, FAILS, calibration=SURE, target=2.0, budget=1)
    assert (order(made), made.outcome, made.executions) == ([0, 1], Outcome.CHOSEN, 1)
    assert made.probability == pytest.approx(0.6)

"""The cascade, against known scores and verdicts, and a run in the sandbox."""

import math
from typing import Any

import pytest

from codescaler_plugin import CodeScaler, CodeScalerConfig, ConfigError, DataError, best_of_n, cascade
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import CallTest, Fault, Problem, Verdict
from codescaler_plugin.scoring import Unscored
from codescaler_plugin.selection.cascade import CascadeConfig, decide_by_tests
from codescaler_plugin.selection.planning import keep_order
from codescaler_plugin.selection.records import Outcome, Selection
from codescaler_plugin.testing import FakeExecutor
from tests.samples import fenced
from tests.selection.known import PROBLEM, SURE, TESTS, choose, executor_of, order, ran, scaler_of


def test_confident_choice_runs_no_test() -> None:
    executor = executor_of({})
    selection = decide_by_tests(
        [choose({"x = 1": 5.0, "y = 2": 0.0}, ["x = 1", "y = 2"])],
        [TESTS],
        executor=executor,
        config=CascadeConfig(SURE, 0.95),
    )[0]
    assert (selection.outcome, selection.executions, ran(executor)) == (Outcome.CHOSEN, 0, [])
    assert selection.best.index == 0
    assert "taken untested" in selection.explanation


def test_tests_run_in_the_order_of_scores_until_one_passes_and_once_for_duplicates() -> None:
    executor = executor_of({"x = 1": (0, 2), "y = 2": (2, 2), "z = 3": (2, 2)})
    scores = {"x = 1": 3.0, "x  =  1": 0.0, "y = 2": 2.0, "z = 3": 1.0}
    ranked = choose(scores, ["z = 3", "y = 2", "x = 1", "x  =  1", "no ("])
    selection = decide_by_tests([ranked], [TESTS], executor=executor, config=CascadeConfig(SURE, 0.95))[0]
    assert ran(executor) == ["x = 1", "y = 2"]
    assert (selection.best.index, selection.executions) == (1, 2)
    assert order(selection) == [1, 0, 2, 3, 4]  # passed, untested, failed with its duplicate, no code
    assert selection.ranked[3].verdict.passed is False
    assert selection.explanation == "candidate 1 passes all tests; 2 programs run"


def test_tests_alone_run_in_the_order_given_and_need_no_scores() -> None:
    scaler = CodeScaler(Unscored(), config=CodeScalerConfig(model="table"))
    completions = [fenced(code) for code in ("a = 1", "b = 2", "b = 2", "c = 3")]
    executor = executor_of({"a = 1": (0, 1), "b = 2": (1, 1)})
    plain = keep_order(best_of_n(scaler, PROBLEM, completions))
    (selection,) = decide_by_tests([plain], [TESTS], executor=executor)
    assert ran(executor) == ["a = 1", "b = 2"]
    assert (order(selection), selection.executions) == ([1, 2, 3, 0], 2)


def test_all_failed_is_an_outcome_of_its_own() -> None:
    executor = executor_of({"x = 1": (0, 2), "y = 2": (1, 2)})
    ranked = choose({"x = 1": 3.0, "y = 2": 2.0}, ["x = 1", "y = 2"])
    selection = decide_by_tests([ranked], [TESTS], executor=executor)[0]
    assert (selection.outcome, selection.best, selection.executions) == (Outcome.ALL_FAILED, None, 2)


def test_budget_bounds_the_runs_and_the_best_untested_program_is_taken() -> None:
    executor = executor_of({"x = 1": (0, 2)})
    ranked = choose({"x = 1": 3.0, "y = 2": 2.0, "z = 3": 1.0}, ["x = 1", "y = 2", "z = 3"])
    selection = decide_by_tests([ranked], [TESTS], executor=executor, config=CascadeConfig(budget=1))[0]
    assert (selection.best.index, selection.executions) == (1, 1)
    assert "budget" in selection.explanation


def test_what_is_left_without_a_score_is_not_chosen_untested() -> None:
    ranked = choose({"x = 1": 3.0, "y = 2": None}, ["x = 1", "y = 2"])
    executor = executor_of({"x = 1": (0, 2), "y = 2": (2, 2)})
    selection = decide_by_tests([ranked], [TESTS], executor=executor, config=CascadeConfig(budget=1))[0]
    assert (selection.outcome, selection.best) == (Outcome.UNSCORED, None)
    assert selection.explanation.endswith("the budget of tests is used up; 1 program run")
    assert decide_by_tests([ranked], [TESTS], executor=executor)[0].best.index == 1


def test_as_many_problems_as_selections_are_needed() -> None:
    with pytest.raises(DataError, match="1 selections and 2 problems"):
        decide_by_tests([choose({"x = 1": 1.0}, ["x = 1"])], [TESTS] * 2, executor=executor_of({}))


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
    goes_on, trusts = executor_of(verdicts), executor_of(verdicts)
    last = decide_by_tests([ranked], [TESTS], executor=goes_on, config=CascadeConfig(SURE, 0.95))[0]
    assert (ran(goes_on), last.best.index) == (list(scores), 2)
    config = CascadeConfig(SURE, 0.95, after_failure=SURE)
    second = decide_by_tests([ranked], [TESTS], executor=trusts, config=config)[0]
    assert (ran(trusts), second.best.index) == (["x = 1"], 1)


def test_generated_tests_prove_nothing_so_the_largest_share_wins() -> None:
    executor = executor_of({"x = 1": (1, 4), "y = 2": (3, 4), "z = 3": (2, 4)})
    ranked = choose({"x = 1": 3.0, "y = 2": 2.0, "z = 3": 1.0}, ["x = 1", "y = 2", "z = 3"])
    selection = decide_by_tests([ranked], [TESTS], executor=executor, config=CascadeConfig(generated=True))[0]
    assert (order(selection), selection.outcome) == ([1, 2, 0], Outcome.CHOSEN)
    assert selection.explanation == "candidate 1 passes 3 of 4 generated tests; 3 programs run"
    executor = executor_of({"x = 1": (3, 4), "y = 2": (4, 4)})
    selection = decide_by_tests([ranked], [TESTS], executor=executor, config=CascadeConfig(generated=True))[0]
    assert (order(selection), selection.explanation) == ([1, 0, 2], "candidate 1 passes all tests; 2 programs run")
    executor = executor_of({"x = 1": (0, 4), "y = 2": (1, 4)})
    for budget, expected in ((1, [1, 2, 0]), (2, [1, 2, 0])):  # passing none is worse than not being run
        config = CascadeConfig(generated=True, budget=budget)
        selection = decide_by_tests([ranked], [TESTS], executor=executor, config=config)[0]
        assert (order(selection), selection.executions) == (expected, budget)


def test_problems_are_tested_in_common_rounds() -> None:
    executor = executor_of({"x = 1": (0, 1), "y = 2": (1, 1)})
    ranked = choose({"x = 1": 1.0, "y = 2": 0.0}, ["x = 1", "y = 2"])
    nothing = best_of_n(scaler_of({}), PROBLEM, ["no"])
    found = decide_by_tests([ranked, nothing, ranked], [TESTS] * 3, executor=executor)
    assert [[code.strip() for code, _ in jobs] for jobs in executor.calls] == [["x = 1", "x = 1"], ["y = 2", "y = 2"]]
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
def test_settings_that_make_no_sense_are_errors(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        CascadeConfig(**settings)


NO_VERDICT = Verdict(False, "MissingPackage", 0, 1, fault=Fault.MISSING_PACKAGE)
FAILS, PASSES = Verdict(False, "WrongAnswer", 0, 1), Verdict(True, "", 1, 1)


def decided(*verdicts: Verdict, **settings: Any) -> tuple[Selection, list[str]]:
    codes = [f"x = {n}" for n in range(len(verdicts))]
    ranked = choose({code: float(-n) for n, code in enumerate(codes)}, codes)
    executor = FakeExecutor(dict(zip(codes, verdicts, strict=True)))
    (selection,) = decide_by_tests([ranked], [TESTS], executor=executor, config=CascadeConfig(**settings))
    return selection, ran(executor)


def test_a_program_on_which_the_tests_gave_no_verdict_is_neither_passed_nor_failed() -> None:
    passed, programs = decided(NO_VERDICT, FAILS, PASSES)
    assert (order(passed), passed.outcome, programs) == ([2, 0, 1], Outcome.CHOSEN, ["x = 0", "x = 1", "x = 2"])
    assert passed.explanation == "candidate 2 passes all tests; 3 programs run, no verdict: missing_package 1"
    none, _ = decided(FAILS, NO_VERDICT, FAILS)
    assert (order(none), none.outcome) == ([1, 0, 2], Outcome.CHOSEN)
    assert "its tests gave no verdict (missing_package)" in none.explanation
    assert decided(FAILS, FAILS)[0].outcome is Outcome.ALL_FAILED
    generated, _ = decided(NO_VERDICT, FAILS, generated=True)
    assert order(generated) == [0, 1]


def test_a_fault_is_no_evidence_so_the_confidence_stays_what_it_was() -> None:
    made, _ = decided(NO_VERDICT, FAILS, calibration=SURE, target=2.0, budget=1)
    assert (order(made), made.outcome, made.executions) == ([0, 1], Outcome.CHOSEN, 1)
    assert made.probability == pytest.approx(0.6)

"""Plans at given costs, against counting and against the cascade itself."""

import math
from pathlib import Path
from statistics import fmean

import pytest

from codescaler_plugin import ConfigError, DataError
from codescaler_plugin.selection.calibration import read_calibration
from codescaler_plugin.selection.cascade import CascadeConfig, decide_by_tests
from codescaler_plugin.selection.planning import (
    Costs,
    fit_margins,
    measure_plans,
    price_plans,
    read_plans,
    replay,
    with_plans,
)
from tests.selection.known import SURE, TESTS, executor_of, order, synthetic


def test_plan_follows_the_costs() -> None:
    labelled = synthetic(200, 2)
    free_tests = price_plans(measure_plans(labelled), Costs(score=1.0, test=0.0, wrong=10.0))
    assert free_tests[0].strategy == "tests"
    dear_tests = price_plans(measure_plans(labelled), Costs(score=0.0, test=100.0, wrong=10.0))
    assert dear_tests[0].strategy == "rm"
    between = price_plans(measure_plans(labelled), Costs(score=0.0, test=1.0, wrong=40.0))
    assert between[0].strategy == "cascade"
    assert [one.cost for one in between] == sorted(one.cost for one in between)


def test_plan_counts_what_a_run_would_count() -> None:
    labelled = synthetic(200, 3)
    by_strategy = {
        (one.strategy, one.target): one for one in price_plans(measure_plans(labelled), Costs(0.5, 2.0, 7.0))
    }
    oracle = fmean(any(passed) for _, passed in labelled)
    rm, tests, always = by_strategy["rm", None], by_strategy["tests", None], by_strategy["cascade", 1.01]
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
    file.write_text(with_plans(fitted, measure_plans(labelled)))
    assert read_calibration(file) == fitted
    assert price_plans(read_plans(file), costs) == price_plans(measure_plans(labelled), costs)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("{}", "KeyError: 'plans'"),
        ('{"plans": []}', "no plans"),
        ('{"plans": [{"strategy": "rm"}]}', "missing"),
        (
            '{"plans": [{"strategy": "luck", "target": null, "accuracy": 1, "executions": 1, "scored": 1}]}',
            "strategy of rm",
        ),
        (
            '{"plans": [{"strategy": "cascade", "target": null, "accuracy": 1, "executions": 1, "scored": 1}]}',
            "target",
        ),
        (
            '{"plans": [{"strategy": "rm", "target": null, "accuracy": 2, "executions": 1, "scored": 1}]}',
            "accuracy in",
        ),
        (
            '{"plans": [{"strategy": "rm", "target": null, "accuracy": "1", "executions": 1, "scored": 1}]}',
            "TypeError",
        ),
    ],
)
def test_file_without_sound_plans_is_named_with_the_next_step(tmp_path: Path, found: str, said: str) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(found)
    with pytest.raises(DataError, match=r"calibration\.json.*" + said) as error:
        read_plans(file)
    assert "codescaler calibrate" in str(error.value)
    with pytest.raises(ConfigError, match=r"missing\.json"):
        read_plans(tmp_path / "missing.json")


def test_replay_is_the_cascade_itself() -> None:
    labelled = synthetic(30, 4)
    config = CascadeConfig(SURE, 0.7, budget=3)
    for (selection, passed), replayed in zip(labelled, replay(labelled, config), strict=True):
        executor = executor_of({f"x = {index}": (int(right), 1) for index, right in enumerate(passed)})
        (run,) = decide_by_tests([selection], [TESTS], executor=executor, config=config)
        assert (order(run), run.outcome, run.executions) == (order(replayed), replayed.outcome, replayed.executions)


def test_plan_of_unequal_lengths_or_of_one_problem_is_an_error() -> None:
    (one, passed), *_ = synthetic(1, 5)
    with pytest.raises(DataError, match="8 candidates and 7 verdicts"):
        measure_plans([(one, passed[:-1])])
    with pytest.raises(DataError, match="1 problems"):
        measure_plans([(one, passed)])
    for cost in (-1, math.nan, math.inf):
        with pytest.raises(ConfigError, match="finite costs of at least 0"):
            Costs(1, cost, 1)

"""The reward by itself, called as TRL calls it; `tests/contract/test_trl.py` has the trainers."""

import importlib
import math
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin import (
    CodeScalerReward,
    ConfigError,
    DataError,
    ScorerError,
    codescaler_reward,
    load_scorer,
)
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer
from codescaler_plugin.testing import FakeScorer
from tests.contract import spawned
from tests.samples import fenced

CODES = ["x = 1", "xx = 1", "xxx = 1", "xxxx = 1"]


def test_reward_is_called_without_log_functions_by_some_trainers() -> None:
    reward = CodeScalerReward(scorer=FakeScorer(), shaping="raw")
    given = reward(prompts=["p", "p"], completions=[fenced("x = 1"), "No."], completion_ids=[[1], [2]], task_id=[1, 2])
    assert given == [6.0, 0.0]


def test_empty_batch_gives_no_rewards_and_finite_metrics() -> None:
    metrics: dict[str, float] = {}
    tables: dict[str, list[Any]] = {}
    reward = CodeScalerReward(scorer=FakeScorer())
    given = reward(
        prompts=[], completions=[], log_metric=metrics.__setitem__, log_extra=tables.__setitem__, trainer_state=None
    )
    assert given == []
    assert metrics
    assert all(map(math.isfinite, metrics.values()))
    assert tables == {f"codescaler_reward/{column}": [] for column in ("status", "score", "explanation")}


def test_the_completions_table_holds_status_score_and_explanation() -> None:
    tables: dict[str, list[Any]] = {}
    reward = CodeScalerReward(scorer=FakeScorer(lambda _, code: math.nan if "y" in code else len(code)))
    reward(
        prompts=["p"] * 3,
        completions=[fenced("x = 1"), "No.", fenced("y = 1")],
        log_extra=tables.__setitem__,
    )
    assert tables == {
        "codescaler_reward/status": ["ok", "no_block", "ok"],
        "codescaler_reward/score": [6.0, None, None],
        "codescaler_reward/explanation": [
            "The block at line 3 of the completion is a python program.",
            "The completion has no fenced block.",
            "There is no reward (no_score): the code is too long for the model, or its logit is not finite.",
        ],
    }


def test_missing_problem_column_is_a_data_error_that_lists_the_columns() -> None:
    reward = CodeScalerReward(scorer=FakeScorer(), problem_column="question")
    with pytest.raises(DataError, match=r"'question'.*statement, task_id"):
        reward(prompts=["p"], completions=["c"], task_id=[1], statement=["s"])


def test_wrong_setting_shows_when_the_reward_is_made() -> None:
    with pytest.raises(ConfigError, match="did you mean shaping"):
        CodeScalerReward(shapping="raw")


def test_invalid_programs_alone_say_nothing_of_the_model() -> None:
    reward = CodeScalerReward(scorer=FakeScorer(fails_after=0))
    for _ in range(4):
        assert reward(prompts=["p"], completions=["No program."]) == [0.0]
    with pytest.raises(ScorerError, match="first call"):
        reward(prompts=["p", "p"], completions=["No program.", fenced("x = 1")])


def test_unscored_calls_count_only_in_a_row_and_the_limit_is_a_setting() -> None:
    class Some(FakeScorer):
        scored = 0

        def score(self, items: Any) -> list[float | None]:
            return [1.0 if place < self.scored else None for place in range(len(items))]

    scorer = Some()
    prompts, texts = ["p"] * 4, [fenced(code) for code in CODES]
    for limit, poor, good in ((0.5, 1, 2), (0.25, 2, 3), (0.0, 3, 4)):
        reward = CodeScalerReward(scorer=scorer, max_unscored=limit)
        for scored in (good, poor, poor, good, poor, poor):
            scorer.scored = scored
            assert reward(prompts=prompts, completions=texts).count(None) == 4 - scored
        with pytest.raises(
            ScorerError, match=rf"{4 - poor} of 4 valid programs got no score.*max_unscored={limit:g} "
        ):
            reward(prompts=prompts, completions=texts)
    never = CodeScalerReward(scorer=scorer, max_unscored=1.0)
    scorer.scored = 0
    assert [never(prompts=prompts, completions=texts) for _ in range(5)] == [[None] * 4] * 5


def test_a_new_process_proves_the_model_anew() -> None:
    reward = CodeScalerReward(scorer=FakeScorer(fails_after=1))
    reward(prompts=["p"], completions=[fenced("x = 1")])
    assert reward(prompts=["p"], completions=[fenced("x = 1")]) == [None]
    with pytest.raises(ScorerError, match="first call"):
        pickle.loads(pickle.dumps(reward))(prompts=["p"], completions=[fenced("x = 1")])


def test_a_model_beside_a_scorer_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no effect with a scorer"):
        CodeScalerReward("builtin", scorer=FakeScorer())


def test_model_that_cannot_be_used_is_raised_and_not_scored_as_none(tmp_path: Path) -> None:
    reward = CodeScalerReward(model=str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="missing"):
        reward(prompts=["p"], completions=[fenced("x = 1")])


def test_model_that_cannot_be_used_is_raised_before_the_first_valid_program(tmp_path: Path) -> None:
    missing = pickle.loads(pickle.dumps(CodeScalerReward(model=str(tmp_path / "missing"))))
    for _ in range(2):
        with pytest.raises(ConfigError, match="missing"):
            missing(prompts=["p"], completions=["No program."])
    with pytest.raises(ScorerError, match=r"http://127\.0\.0\.1:9/v1/score cannot be reached"):
        CodeScalerReward(model="http://127.0.0.1:9", patience=1)(prompts=["p"], completions=["No program."])


def test_invalid_programs_alone_load_a_good_model_once(tiny_rm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = CodeScalerReward(model=str(tiny_rm_dir))
    assert isinstance(reward.scaler.scorer, TransformersScorer)
    assert reward.scaler.scorer._loaded is None
    assert reward(prompts=["p"], completions=["No program."]) == [0.0]
    assert reward.scaler.scorer._loaded is not None
    monkeypatch.setattr(reward.scaler.scorer, "ensure_loaded", lambda: pytest.fail("asked twice"))
    assert reward(prompts=["p"], completions=["No program."]) == [0.0]


@pytest.mark.parametrize("form", ["instance", "lazy"])
def test_reward_works_in_a_spawned_process(tiny_rm_dir: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setenv("CODESCALER_MODEL", str(tiny_rm_dir))
    instance = CodeScalerReward(model=str(tiny_rm_dir))
    expected = instance(prompts=spawned.PROMPTS, completions=spawned.COMPLETIONS)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(
        target=spawned.call, args=(instance if form == "instance" else codescaler_reward, results)
    )
    process.start()
    try:
        given = results.get(timeout=120)
    finally:
        process.join(10)
        process.kill()
    assert given == pytest.approx(expected, rel=1e-5)
    assert given[0] > 0
    assert given[1] == 0.0


def test_used_reward_pickles_as_its_settings(tiny_rm_dir: Path) -> None:
    reward = CodeScalerReward(model=str(tiny_rm_dir), name="other")
    reward(prompts=["p"], completions=[fenced("x = 1")])
    data = pickle.dumps(reward)
    assert len(data) < 2_000
    assert pickle.loads(data).__name__ == "other"


def test_lazy_reward_reads_the_environment_at_its_first_call(
    tiny_rm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = pickle.loads(pickle.dumps(codescaler_reward))
    monkeypatch.setenv("CODESCALER_MODEL", str(tiny_rm_dir))
    monkeypatch.setenv("CODESCALER_SHAPING", "raw")
    given = fresh(prompts=["p"], completions=[fenced("x = 1")])
    assert given == load_scorer(str(tiny_rm_dir)).score([("p", "x = 1\n")])


def test_dotted_name_of_the_command_line_is_a_callable_with_a_name() -> None:
    module, _, attribute = "codescaler_plugin.codescaler_reward".rpartition(".")
    reward = getattr(importlib.import_module(module), attribute)
    assert callable(reward)
    assert not isinstance(reward, type)
    assert reward.__name__ == "codescaler_reward"


def test_a_host_that_reads_none_as_0_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    class Half(FakeScorer):
        def score(self, items: Any) -> list[float | None]:
            return [None, *super().score(items[1:])]

    reward = CodeScalerReward(scorer=Half(), shaping="raw")
    for _ in range(2):
        reward(prompts=["p"] * 4, completions=[fenced(code) for code in CODES], trainer_state=object())
    warned = [record for record in caplog.records if "reads None as 0" in record.message]
    assert len(warned) == 1
    caplog.clear()
    reward(prompts=["p"] * 4, completions=[fenced(code) for code in CODES], log_metric=lambda *_: None)
    assert "reads None as 0" not in caplog.text


@pytest.mark.parametrize("score", [math.nan, math.inf, 1e39])
def test_a_score_that_is_not_finite_counts_as_none(score: float) -> None:
    class Odd(FakeScorer):
        def score(self, items: Any) -> list[float | None]:
            return [score, *[1.0] * (len(items) - 1)]

    metrics: dict[str, float] = {}
    reward = CodeScalerReward(scorer=Odd())
    given = reward(prompts=["p"] * 4, completions=[fenced(code) for code in CODES], log_metric=metrics.__setitem__)
    assert given.count(None) == 1
    assert (metrics["codescaler_reward/unscored"], metrics["codescaler_reward/score/mean"]) == (1.0, 1.0)
    reward(prompts=["p"], completions=[fenced("x = 1")])
    reward(prompts=["p"], completions=[fenced("x = 1")])
    with pytest.raises(ScorerError, match=r"1 of 1 valid programs got no score.*The model is"):
        reward(prompts=["p"], completions=[fenced("x = 1")])

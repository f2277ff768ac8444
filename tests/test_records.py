"""The record that every host hands on: its way through JSON, and what it becomes where a number is needed."""

import json
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codescaler_plugin import CodeScaler, CodeScalerConfig, DataError, Judgement, ScorerError, Status
from codescaler_plugin.errors import Failure, FailureKind, HttpError
from codescaler_plugin.records import CallTest, Problem
from codescaler_plugin.testing import FakeScorer

NUMBERS = st.none() | st.floats(allow_nan=False, width=32)
JUDGEMENTS = st.builds(
    Judgement,
    NUMBERS,
    NUMBERS,
    st.none() | st.sampled_from(Status),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.none() | st.builds(Failure, st.sampled_from(FailureKind), st.text(st.characters(exclude_categories=["Cs"]))),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@given(judgement=JUDGEMENTS)
def test_a_judgement_comes_through_json_and_pickle_as_it_was(judgement: Judgement) -> None:
    read, unpickled = (
        Judgement.from_json(json.loads(json.dumps(judgement.to_json()))),
        pickle.loads(pickle.dumps(judgement)),
    )
    assert read == judgement
    assert unpickled == judgement
    assert read.explanation == unpickled.explanation == judgement.explanation


GOOD = Judgement(1.0, 0.5, Status.OK, "x = 1\n").to_json()


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        "ok",
        {},
        {**GOOD, "status": "fine"},
        {**GOOD, "reward": "much"},
        {**GOOD, "score": [1.0]},
        {**GOOD, "failure": "scorer: down"},
        {**GOOD, "failure": {"kind": "odd", "reason": ""}},
        {**GOOD, "failure": {"kind": "scorer"}},
        {name: value for name, value in GOOD.items() if name != "code"},
    ],
)
def test_what_is_no_judgement_is_a_data_error(values: Any) -> None:
    with pytest.raises(DataError, match="is no judgement"):
        Judgement.from_json(values)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_failure_becomes_the_fallback_or_an_error(kind: FailureKind) -> None:
    failed = Judgement(None, None, Status.OK, "x = 1\n", Failure(kind, "as told"))
    assert (failed.reward_or(-1.0), failed.probability, failed.is_valid) == (-1.0, 0.0, True)
    assert failed.logs() == {"codescaler_valid": 1.0, "codescaler_fallback": 1.0}
    with pytest.raises(DataError if kind is FailureKind.DATA else ScorerError, match=r"^as told$"):
        failed.reward_or(None)
    assert not kind.is_transient or kind.is_outage


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("the model is\n down.", "There is no reward (scorer): the model is down."),
        ("no answer", "There is no reward (scorer): no answer."),
        ("", "There is no reward (scorer): no reason is known."),
    ],
)
def test_a_failure_is_the_explanation_whatever_was_given(reason: str, sentence: str) -> None:
    failed = Judgement(None, None, Status.OK, "x = 1\n", Failure(FailureKind.SCORER, reason), "The block is valid.")
    assert failed.explanation == sentence


def test_every_judgement_of_the_pipeline_is_explained() -> None:
    scaler = CodeScaler(FakeScorer(lambda _, code: math.nan if "y" in code else 1.0))
    completions = ["```python\nx = 1\n```", "I cannot.", "```python\ny = 1\n```", "```python\nx = 1\n```"]
    judgements = scaler.judge(["p", "p", "p", [{"role": "bot", "content": "p"}]], completions)
    assert [judgement.explanation for judgement in judgements[:3]] == [
        "The block at line 1 of the completion is a python program.",
        "The completion has no fenced block.",
        "There is no reward (no_score): the code is too long for the model, or its logit is not finite.",
    ]
    assert judgements[3].explanation.startswith("There is no reward (data): problem 3")


def test_a_reward_stands_in_front_of_any_fallback() -> None:
    invalid = Judgement(0.0, None, Status.NO_BLOCK, "")
    assert invalid.reward_or(-1.0) == invalid.reward_or(None) == 0.0
    assert invalid.logs() == {"codescaler_valid": 0.0, "codescaler_fallback": 0.0}
    invalid.raise_for_failure()


@pytest.mark.parametrize("score", [-1e4, -700.0, -1.0, 0.0, 1.0, 1e4])
def test_the_probability_is_between_0_and_1(score: float) -> None:
    assert 0.0 <= Judgement(1.0, score, Status.OK, "").probability <= 1.0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (None, "scorer"),
        (500, "scorer"),
        (429, "scorer"),
        (401, "config"),
        (404, "config"),
        (200, "config"),
        (422, "data"),
    ],
)
def test_what_a_server_answers_is_a_kind_of_failure(status: int | None, kind: str) -> None:
    assert HttpError("no", status).failure == Failure(FailureKind(kind), "no")


def test_programs_are_judged_as_they_stand() -> None:
    scorer = FakeScorer()
    scaler = CodeScaler(scorer, config=CodeScalerConfig(shaping="raw"))
    judgements = scaler.judge_programs(["p", "q"], ["x = 1\n", "return 1\n"])
    assert judgements == [Judgement(6.0, 6.0, Status.OK, ""), Judgement(9.0, 9.0, Status.OK, "")]
    assert scorer.calls == [[("p", "x = 1\n"), ("q", "return 1\n")]]
    with pytest.raises(DataError, match="2 problems for 1 programs"):
        scaler.judge_programs(["p", "q"], ["x = 1\n"])


def test_the_same_scorer_takes_other_settings() -> None:
    scaler = CodeScaler(FakeScorer(), config=CodeScalerConfig(shaping="raw"))
    other = scaler.with_config(extraction="last")
    assert other.scorer is scaler.scorer
    assert (other.config.extraction, other.config.shaping) == ("last", "raw")


@pytest.mark.parametrize(
    ("tests", "said"), [(("assert solve(1) == 2",), "a test of problem 'p' is str"), ("assert True", "is one string")]
)
def test_tests_of_another_type_are_named(tests: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Problem("p", "Add.", tests)


def test_a_call_without_a_function_is_named() -> None:
    with pytest.raises(DataError, match="problem 'p' has a CallTest and no entry_point: name the function to call"):
        Problem("p", "Add.", (CallTest((1,), 2),))


def test_a_judgement_is_read_without_an_explanation_and_not_without_code() -> None:
    values = Judgement(1.5, 1.25, Status.OK, "x = 1").to_json()
    for changed in (values | {"explanation": None}, {name: values[name] for name in values if name != "explanation"}):
        assert Judgement.from_json(changed).explanation == ""
    with pytest.raises(DataError, match="code is None, not text"):
        Judgement.from_json(values | {"code": None})

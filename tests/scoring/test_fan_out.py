"""Items that fail or are refused cost no other item its score."""

from typing import Any

import pytest

from codescaler_plugin import CodeScaler, CodeScalerConfig, ScorerError, http_client, load_scorer
from codescaler_plugin.errors import FailureKind
from tests.samples import fenced
from tests.scoring.servers import ITEMS, codescaler


def test_server_that_fails_again_and_again_is_not_asked_for_every_item(serve) -> None:
    double = serve(lambda path, body: (404, {"detail": "Not Found"}))
    with pytest.raises(ScorerError, match="404: Not Found") as caught:
        load_scorer(double.url).score([(f"problem {number}", "x = 1\n") for number in range(64 * 60)])
    assert caught.value.scores == (None,) * 64 * 60
    assert 8 <= len(double.asked) < 60


def test_item_that_a_codescaler_server_refuses_is_named_and_the_others_are_scored(serve) -> None:
    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if any(item["problem"] == "q" for item in body["items"]):
            return 422, {"detail": "too many characters"}
        return codescaler(path, body)

    double = serve(answer)
    with pytest.raises(ScorerError, match=rf"item 1 \(problem 'q'\): {double.url}.*422: too many char") as caught:
        load_scorer(double.url).score(ITEMS)
    assert caught.value.scores == (6.0, None, 8.0, 6.0)


def test_many_items_that_are_refused_together_are_scored_one_by_one(serve) -> None:
    double = serve(
        lambda path, body: (413, {"detail": "too large"}) if len(body["items"]) > 1 else codescaler(path, body)
    )
    assert load_scorer(double.url).score(ITEMS) == [6.0, 7.0, 8.0, 6.0]


def test_what_was_scored_before_a_failure_is_kept(serve) -> None:
    items = [(f"problem {number}", f"x = {number}\n") for number in range(130)]

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if any(item["problem"] == "problem 70" for item in body["items"]):
            return 500, {"detail": "poisoned"}
        return codescaler(path, body)

    double = serve(answer)
    with pytest.raises(ScorerError, match="poisoned") as caught:
        load_scorer(double.url).score(items)
    assert len(caught.value.scores) == 130
    assert sum(score is None for score in caught.value.scores) == 64  # one request's


def test_client_asks_again_only_for_what_was_not_scored(serve) -> None:
    problems = [f"problem {number}" for number in range(130)]
    failed: list[int] = []

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if any(item["problem"] == "problem 70" for item in body["items"]) and len(failed) < http_client.ATTEMPTS - 1:
            failed.append(len(body["items"]))
            return 500, {}
        return codescaler(path, body)

    double = serve(answer)
    scaler = CodeScaler(config=CodeScalerConfig(model=double.url))
    judgements = scaler.judge(problems, [fenced("x = 1")] * 130)
    assert all(judgement.score == 6.0 for judgement in judgements)
    assert len(double.asked[-1][1]["items"]) == 64


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_refused_item_of_a_full_request_costs_two_requests_a_halving(serve, status: int) -> None:
    items = [("p", f"x = {number}\n") for number in range(64)]

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        bad = any(item["code"] == "x = 41\n" for item in body["items"])
        return (status, {"detail": "no"}) if bad else codescaler(path, body)

    double = serve(answer)
    with pytest.raises(ScorerError, match=r"^item 41 \(problem 'p'\)") as caught:
        load_scorer(double.url).score(items)
    assert {index: failure.kind for index, failure in caught.value.failures.items()} == {41: FailureKind.DATA}
    assert len(double.asked) == 1 + 2 * 6

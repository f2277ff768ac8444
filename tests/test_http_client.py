"""One retry policy: what is sent again, to which server, how often and for how long."""

import json
import time
from typing import Any

import pytest

from codescaler_plugin import ScorerError, http_client, load_scorer
from codescaler_plugin.errors import FailureKind, HttpError
from codescaler_plugin.http_client import HttpClient, RetryPolicy, _message
from tests.scoring.servers import ITEMS, codescaler, first_then, scores


@pytest.mark.parametrize("status", [429, 500, 503])
def test_answer_that_may_pass_is_asked_again(serve, status: int) -> None:
    double = serve(first_then((status, {"detail": "busy"}), (status, {"detail": "busy"}), then=codescaler))
    assert load_scorer(double.url).score(ITEMS)[0] == 6.0
    assert len(double.asked) == 3


def test_server_that_asks_to_come_back_in_an_hour_is_asked_sooner(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_LONGEST_PAUSE", 0.05)
    double = serve(first_then((503, {"detail": "busy"}), then=codescaler))
    double.retry_after = "3600"
    started = time.monotonic()
    assert load_scorer(double.url).score(ITEMS)[0] == 6.0
    assert 0.05 <= time.monotonic() - started < 5


def test_server_that_stays_broken_is_an_error_that_names_it_and_what_it_said(serve) -> None:
    double = serve(lambda path, body: (500, {"error": {"message": "engine died"}}))
    with pytest.raises(ScorerError, match=rf"{double.url}/v1/score answered 500: engine died"):
        load_scorer(double.url).score(ITEMS)
    assert len(double.asked) == http_client.ATTEMPTS


def test_other_server_takes_over(serve) -> None:
    broken, working = serve(lambda path, body: (500, "")), serve(codescaler)
    assert load_scorer(f"{broken.url},{working.url}").score(ITEMS)[:2] == [6.0, 7.0]


def test_server_that_is_down_is_an_error_that_names_it() -> None:
    with pytest.raises(ScorerError, match=r"http://127\.0\.0\.1:9/v1/score cannot be reached"):
        load_scorer("http://127.0.0.1:9", patience=0.0).score(ITEMS)


def test_server_that_never_answers_is_given_up(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    double = serve(lambda path, body: (time.sleep(1), (200, {}))[1])
    pool = http_client.HttpClient(double.url, read_seconds=0.05, retry=RetryPolicy(attempts=2))
    started = time.monotonic()
    with pytest.raises(HttpError, match="Read timed out"):
        pool.post("/v1/score", {"items": []})
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599, None])
def test_passing_failures_end_after_the_attempts_of_the_policy(serve, status: int | None) -> None:
    double = serve(lambda path, body: (status or 200, {} if status else scores("timeout", "timeout", "scorer")))
    with pytest.raises(ScorerError) as caught:
        load_scorer(double.url).score(ITEMS)
    assert {failure.kind.is_transient for failure in caught.value.failures.values()} == {True}
    assert len(double.asked) == http_client.ATTEMPTS


@pytest.mark.parametrize("status", [401, 403, 404, 405, 409, 410, 418, 451])
def test_other_answers_of_the_400s_are_never_asked_for_again(serve, status: int) -> None:
    double = serve(lambda path, body: (status, {}))
    with pytest.raises(ScorerError) as caught:
        load_scorer(double.url).score(ITEMS)
    assert {failure.kind for failure in caught.value.failures.values()} == {FailureKind.CONFIG}
    assert len(double.asked) == 1


def test_a_server_that_says_when_to_come_back_is_not_asked_before(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_LONGEST_PAUSE", 30.0)
    double = serve(lambda path, body: (503, {"detail": "busy"}))
    double.retry_after = "30"
    with pytest.raises(ScorerError, match="busy"):
        load_scorer(double.url, patience=5.0).score(ITEMS)
    assert len(double.asked) == 1


def test_what_cannot_be_sent_costs_no_other_its_score(serve) -> None:
    double = serve(codescaler)
    with pytest.raises(ScorerError, match="cannot be sent") as caught:
        load_scorer(double.url).score([*ITEMS, ("p", "x = '\ud800'\n")])
    assert caught.value.scores == (6.0, 7.0, 8.0, 6.0, None)
    assert {failure.kind for failure in caught.value.failures.values()} == {FailureKind.DATA}


@pytest.mark.parametrize("patience", [0.0, 0.3])
def test_a_request_ends_within_the_patience_and_one_answer_of_each_server(serve, patience: float) -> None:
    def slow(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(0.2)
        return 503, {}

    doubles = [serve(slow), serve(slow)]
    client = HttpClient(",".join(double.url for double in doubles), retry=RetryPolicy(10**6, patience))
    started = time.monotonic()
    with pytest.raises(HttpError):
        client.post("/v1/score", {"items": [1]})
    assert 0.4 <= time.monotonic() - started < patience + 0.4 + 0.5
    assert all(double.asked for double in doubles)


def test_a_server_that_will_not_serve_is_left_out_while_the_other_recovers(serve) -> None:
    closed = serve(lambda path, body: (401, {}))
    busy = serve(first_then((503, {}), (503, {}), then=codescaler))
    assert load_scorer(f"{closed.url},{busy.url}", api_key="k").score(ITEMS)[:2] == [6.0, 7.0]
    assert (len(closed.asked), len(busy.asked)) == (1, 3)


def test_alternating_failures_share_the_attempts(serve) -> None:
    numbers = iter(range(10**6))
    double = serve(
        lambda path, body: (200, scores(*["timeout"] * len(body["items"]))) if next(numbers) % 2 else (503, {})
    )
    with pytest.raises(ScorerError):
        load_scorer(double.url).score(ITEMS)
    assert len(double.asked) == http_client.ATTEMPTS


@pytest.mark.parametrize("body", ["down\nerror: fake", json.dumps({"error": {"message": "down\nerror: fake"}})])
def test_what_a_server_says_is_one_line(body: str) -> None:
    assert _message(body) == "down error: fake"


def test_an_error_nested_beyond_json_is_shown() -> None:
    assert _message("[" * 100_000).startswith("[[[")

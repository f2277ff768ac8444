import pickle
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin import CodeScalerConfig, ScorerError, load_scorer
from codescaler_plugin.errors import FailureKind
from codescaler_plugin.scoring.remote_scorer import RemoteScorer
from codescaler_plugin.scoring.vllm_scorer import VllmScorer
from tests.scoring.servers import ITEMS, codescaler, first_then, scores, vllm_of


def test_remote_scores_come_in_the_order_of_the_items_and_equal_ones_are_asked_once(serve) -> None:
    double = serve(codescaler)
    assert load_scorer(double.url).score(ITEMS) == [6.0, 7.0, 8.0, 6.0]
    ((path, body),) = double.asked
    assert path == "/v1/score"
    assert body["items"] == [
        {"problem": "p", "code": "x = 1\n"},
        {"problem": "p", "code": "z = 333\n"},
        {"problem": "q", "code": "y = 22\n"},
    ]


def test_api_key_is_sent_and_not_shown(serve) -> None:
    double = serve(codescaler)
    load_scorer(double.url, api_key="secret").score(ITEMS)
    assert double.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in repr(CodeScalerConfig(model="http://rm:9", api_key="secret"))


@pytest.mark.parametrize(
    "answer",
    [
        scores(1.0),
        {"judgements": "many"},
        {},
        [],
        {"judgements": [1.0, "a", 2.0]},
        "no json",
        scores(1.0, [1.0], 2.0),
        scores(1.0, "no_such_kind", 2.0),
    ],
)
def test_answer_of_another_form_is_an_error(serve, answer: Any) -> None:
    double = serve(lambda path, body: (200, answer))
    with pytest.raises(ScorerError, match=double.url):
        load_scorer(double.url).score(ITEMS)


@pytest.mark.parametrize("kind", ["timeout", "scorer"])
def test_programs_that_a_server_fails_on_in_passing_are_asked_for_again_alone(serve, kind: str) -> None:
    double = serve(first_then((200, scores(6.0, kind, 7.0)), (200, scores(kind)), then=codescaler))
    assert load_scorer(double.url).score(ITEMS) == [6.0, 7.0, 8.0, 6.0]
    assert [[item["code"] for item in body["items"]] for _, body in double.asked[1:]] == [["z = 333\n"]] * 2


@pytest.mark.parametrize("kind", ["data", "worker", "config"])
def test_what_a_server_says_of_an_item_is_final(serve, kind: str) -> None:
    double = serve(lambda path, body: (200, scores(6.0, kind, 7.0)))
    with pytest.raises(ScorerError, match=r"so$") as caught:
        load_scorer(double.url).score(ITEMS)
    assert caught.value.scores == (6.0, 7.0, None, 6.0)
    assert {index: failure.kind for index, failure in caught.value.failures.items()} == {2: kind}
    assert len(double.asked) == 1


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), 1e39])
def test_score_that_is_none_costs_no_other_its_score(serve, value: float | None) -> None:
    double = serve(lambda path, body: (200, scores(6.0, value, 7.0)))
    with pytest.raises(ScorerError, match="is no score") as caught:
        load_scorer(double.url).score(ITEMS)
    assert caught.value.scores == (6.0, 7.0, None, 6.0)
    assert caught.value.failures[2].kind is FailureKind.NO_SCORE


def test_answer_that_breaks_off_is_asked_for_again(serve) -> None:
    double = serve(first_then((200, scores(6.0)), (200, scores()), then=codescaler))
    assert load_scorer(double.url).score(ITEMS) == [6.0, 7.0, 8.0, 6.0]
    assert len(double.asked) == 3


def test_program_without_a_score_at_the_server_has_none_here(serve) -> None:
    double = serve(lambda path, body: (200, scores(6.0, "no_score", 7.0)))
    assert load_scorer(double.url).score(ITEMS) == [6.0, 7.0, None, 6.0]
    assert len(double.asked) == 1


def test_remote_scorer_pickles_as_its_addresses(serve) -> None:
    double = serve(codescaler)
    scorer = pickle.loads(pickle.dumps(RemoteScorer(double.url, api_key="k")))
    assert scorer.score(ITEMS[:1]) == [6.0]
    assert double.headers[0]["Authorization"] == "Bearer k"


def test_servers_are_asked_without_a_program(serve, tiny_rm_dir: Path) -> None:
    double, other = serve(codescaler), serve(codescaler)
    RemoteScorer(f"{double.url},{other.url}").ensure_loaded()
    assert double.asked == other.asked == [("/v1/score", {"items": []})]
    double = serve(vllm_of(tiny_rm_dir))
    scorer = VllmScorer(double.url)
    scorer.ensure_loaded()
    asked = len(double.asked)
    scorer.ensure_loaded()
    assert asked == len(double.asked) > 0


@pytest.mark.parametrize("kind", ["", "vllm+"])
def test_server_that_is_down_or_another_is_found_without_a_program(serve, kind: str) -> None:
    for url in ("http://127.0.0.1:9", serve(lambda *_: (404, {"detail": "Not Found"})).url):
        with pytest.raises(ScorerError, match=url):
            load_scorer(kind + url, patience=0.01).ensure_loaded()  # type: ignore[attr-defined]


def test_no_items_ask_nothing(serve) -> None:
    double = serve(codescaler)
    assert load_scorer(double.url).score([]) == load_scorer(f"vllm+{double.url}").score([]) == []
    assert double.asked == []


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "give the server's key as api_key"),
        (403, "api_key"),
        (404, "http://host:port without a path"),
        (405, "path"),
    ],
)
def test_a_wrong_key_and_a_wrong_path_name_the_next_step(serve, status: int, said: str) -> None:
    double = serve(lambda path, body: (status, {"detail": "no"}))
    with pytest.raises(ScorerError, match=rf"{double.url}/v1/score answered {status}: no.*{said}"):
        load_scorer(double.url).score(ITEMS)


def test_what_a_server_refuses_is_told_from_an_outage(serve) -> None:
    double = serve(lambda path, body: (422, {"detail": "too long"}))
    with pytest.raises(ScorerError, match="too long") as caught:
        load_scorer(double.url).score(ITEMS)
    assert {failure.kind for failure in caught.value.failures.values()} == {FailureKind.DATA}

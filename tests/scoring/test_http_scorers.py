"""The scorers over HTTP against a server in this process that answers what each test wants."""

import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin import (
    CodeScaler,
    CodeScalerConfig,
    ConfigError,
    ScorerError,
    http_client,
    load_scorer,
)
from codescaler_plugin.errors import FailureKind, HttpError
from codescaler_plugin.http_client import HttpClient, RetryPolicy, _message
from codescaler_plugin.scoring.remote_scorer import RemoteScorer
from codescaler_plugin.scoring.vllm_scorer import VllmScorer
from tests.doubles import Answer
from tests.samples import fenced

ITEMS = [("p", "x = 1\n"), ("q", "y = 22\n"), ("p", "z = 333\n"), ("p", "x = 1\n")]


def scores(*values: Any) -> dict[str, Any]:
    """What a codescaler server answers; a text stands for a failure of that kind."""
    return {
        "scores": [None if isinstance(value, str) else value for value in values],
        "judgements": [
            {"reward": None, "score": None, "status": None, "code": "", "failure": {"kind": value, "reason": "so"}}
            if isinstance(value, str)
            else {"reward": value, "score": value, "status": "ok", "code": "", "failure": None}
            for value in values
        ],
    }


def codescaler(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    return 200, scores(*(float(len(item["code"])) for item in body["items"]))


def vllm_of(folder: Path, *, name: str = "rm", limit: int = 4096) -> Answer:
    """Scores by the number of tokens, as vLLM answers."""

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": name, "root": str(folder), "max_model_len": limit}]}
        sign = 1 if body["use_activation"] is False else -1
        rows = [
            {"index": index, "probs": [sign * float(len(ids))], "num_classes": 1}
            for index, ids in enumerate(body["input"])
        ]
        return 200, {"data": rows[::-1]}

    return answer


def first_then(*answers: tuple[int, Any], then: Answer, path: str = "") -> Answer:
    """The answers in turn to requests of a path, then those of another function."""
    queue = list(answers)

    def answer(asked: str, body: dict[str, Any]) -> tuple[int, Any]:
        return queue.pop(0) if queue and asked.startswith(path) else then(asked, body)

    return answer


# A codescaler server


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


def test_api_key_is_sent_to_vllm_and_survives_pickling(serve, tiny_rm_dir: Path) -> None:
    double = serve(vllm_of(tiny_rm_dir))
    pickle.loads(pickle.dumps(load_scorer(f"vllm+{double.url}", api_key="secret"))).score(ITEMS)
    assert {headers.get("Authorization") for headers in double.headers} == {"Bearer secret"}


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


@pytest.mark.parametrize("kind", ["timeout", "scorer"])
def test_samples_that_a_server_fails_on_in_passing_are_asked_for_again_alone(serve, kind: str) -> None:
    double = serve(first_then((200, scores(6.0, kind, 7.0)), (200, scores(kind)), then=codescaler))
    assert load_scorer(double.url).score(ITEMS) == [6.0, 7.0, 8.0, 6.0]
    assert [[item["code"] for item in body["items"]] for _, body in double.asked[1:]] == [["z = 333\n"]] * 2


@pytest.mark.parametrize("kind", ["data", "worker", "config"])
def test_what_a_server_says_of_a_sample_is_final(serve, kind: str) -> None:
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


# What it costs at worst


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


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_refused_sample_of_a_full_request_costs_two_requests_a_halving(serve, status: int) -> None:
    items = [("p", f"x = {number}\n") for number in range(64)]

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        bad = any(item["code"] == "x = 41\n" for item in body["items"])
        return (status, {"detail": "no"}) if bad else codescaler(path, body)

    double = serve(answer)
    with pytest.raises(ScorerError, match=r"^item 41 \(problem 'p'\)") as caught:
        load_scorer(double.url).score(items)
    assert {index: failure.kind for index, failure in caught.value.failures.items()} == {41: FailureKind.DATA}
    assert len(double.asked) == 1 + 2 * 6


def test_a_vllm_server_that_is_down_costs_one_request_with_its_retries() -> None:
    scaler = CodeScaler(config=CodeScalerConfig(model="vllm+http://127.0.0.1:9", patience=0.6))
    started = time.monotonic()
    judgements = scaler.judge(["p"] * 64, [fenced(f"x = {number}") for number in range(64)])
    assert {str(judgement.failure)[:8] for judgement in judgements} == {"scorer: "}
    assert time.monotonic() - started < 2


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


@pytest.mark.parametrize("model", ["http://x:SECRET@rm:9", "vllm+http://SECRET@rm:9"])
def test_a_key_in_an_address_is_refused_and_not_shown(model: str) -> None:
    with pytest.raises(ConfigError, match="give the key as api_key") as caught:
        CodeScalerConfig(model=model)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("model", ["http://rm:9#m", "http://rm:9?x=1", "vllm+http://a:9#m,vllm+http://b:9#m"])
def test_an_address_with_more_than_an_address_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        load_scorer(model)


def test_alternating_failures_share_the_attempts(serve) -> None:
    numbers = iter(range(10**6))
    double = serve(
        lambda path, body: (200, scores(*["timeout"] * len(body["items"]))) if next(numbers) % 2 else (503, {})
    )
    with pytest.raises(ScorerError):
        load_scorer(double.url).score(ITEMS)
    assert len(double.asked) == http_client.ATTEMPTS


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


@pytest.mark.parametrize("model", ["ftp://host", "http://", "vllm+ftp://host", "vllm+http://"])
def test_address_that_is_none_is_a_config_error(model: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        load_scorer(model)


def test_settings_that_a_server_cannot_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="cache_dir"):
        load_scorer("http://host:9000", cache_dir="x")
    with pytest.raises(ConfigError, match="tokenizer"):
        load_scorer("builtin", tokenizer="x")


# vLLM


def test_vllm_gets_token_ids_of_a_group_together_and_no_activation(serve, tiny_rm_dir: Path) -> None:
    double = serve(vllm_of(tiny_rm_dir))
    scores = load_scorer(f"vllm+{double.url}").score(ITEMS)
    path, body = double.asked[-1]
    assert (path, body["model"], body["use_activation"]) == ("/classify", "rm", False)
    first, second, third = body["input"]
    assert [float(len(ids)) for ids in (first, third, second, first)] == scores
    common = next(i for i, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    assert common > len(first) // 3, "samples of a problem are neighbours"


def test_vllm_is_not_asked_twice_for_the_same(serve, tiny_rm_dir: Path) -> None:
    double = serve(vllm_of(tiny_rm_dir))
    scorer = load_scorer(f"vllm+{double.url}")
    assert scorer.score(ITEMS) == scorer.score(ITEMS)
    assert sum("use_activation" in body for _, body in double.asked) == 3  # two probes and one request


def test_vllm_that_ignores_use_activation_is_found_out(serve, tiny_rm_dir: Path) -> None:
    honest = vllm_of(tiny_rm_dir)

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return honest(path, {**body, "use_activation": True})

    double = serve(answer)
    with pytest.raises(ScorerError, match=rf"{double.url}.*with and without its activation"):
        load_scorer(f"vllm+{double.url}").score(ITEMS)


def test_vllm_with_another_model_is_an_error_that_names_both(serve, tiny_rm_dir: Path) -> None:
    double = serve(vllm_of(tiny_rm_dir, name="other"))
    with pytest.raises(ScorerError, match=rf"{double.url} serves other, not 'rm'"):
        load_scorer(f"vllm+{double.url}#rm").score(ITEMS)


def test_vllm_servers_with_different_models_are_an_error(serve, tiny_rm_dir: Path) -> None:
    one, other = serve(vllm_of(tiny_rm_dir, name="a")), serve(vllm_of(tiny_rm_dir, name="b"))
    with pytest.raises(ScorerError, match="different models: a, b"):
        load_scorer(f"vllm+{one.url},{other.url}").score(ITEMS)


def test_vllm_without_classify_is_an_error_that_says_how_to_start_it(serve, tiny_rm_dir: Path) -> None:
    honest = vllm_of(tiny_rm_dir)
    double = serve(lambda path, body: (404, {"detail": "Not Found"}) if path == "/classify" else honest(path, body))
    with pytest.raises(ScorerError, match=r"404: Not Found; start it with: vllm serve MODEL --runner pooling"):
        load_scorer(f"vllm+{double.url}").score(ITEMS)


def test_item_that_vllm_refuses_is_named_and_the_others_are_scored(serve, tiny_rm_dir: Path) -> None:
    honest = vllm_of(tiny_rm_dir)
    lengths = VllmScorer(serve(honest).url).score(ITEMS)

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if any(len(ids) == lengths[1] for ids in body.get("input", [])):
            return 400, {"error": {"message": "too long for me"}}
        return honest(path, body)

    double = serve(answer)
    with pytest.raises(ScorerError, match=r"item 1 \(problem 'q'\).*400: too long for me") as caught:
        load_scorer(f"vllm+{double.url}").score(ITEMS)
    assert caught.value.scores == (lengths[0], None, lengths[2], lengths[0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected 3 rows from /classify, got 0 rows"),
        ([{"index": 0, "probs": [1.0, 2.0]}] * 3, "no row of a reward model with one label"),
        ([{"index": 0, "probs": [1.0]}] * 3, "item 1 got no row"),
        ([{"index": index, "probs": [float("nan")]} for index in range(3)], "no finite logit"),
        ([{"index": 7, "probs": [1.0]}] * 3, "no row of a reward model"),
        (["row"] * 3, "no row of a reward model"),
    ],
)
def test_vllm_rows_of_another_form_are_an_error(serve, tiny_rm_dir: Path, data: list[Any], message: str) -> None:
    honest = vllm_of(tiny_rm_dir)

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return (200, {"data": data}) if len(body.get("input", [])) == 3 else honest(path, body)

    double = serve(answer)
    with pytest.raises(ScorerError, match=message):
        load_scorer(f"vllm+{double.url}").score(ITEMS)


def test_vllm_without_tokenizer_files_is_a_config_error_that_names_the_setting(serve, tmp_path: Path) -> None:
    double = serve(vllm_of(tmp_path))
    with pytest.raises(ConfigError, match="CODESCALER_TOKENIZER"):
        load_scorer(f"vllm+{double.url}").score(ITEMS)


def test_tokenizer_may_be_given(serve, tmp_path: Path, tiny_tokenizer_dir: Path) -> None:
    double = serve(vllm_of(tmp_path))
    assert None not in load_scorer(f"vllm+{double.url}", tokenizer=str(tiny_tokenizer_dir)).score(ITEMS)


def test_code_that_does_not_fit_the_server_gets_no_score(serve, tiny_rm_dir: Path) -> None:
    double = serve(vllm_of(tiny_rm_dir, limit=120))
    scores = load_scorer(f"vllm+{double.url}").score([("p", "x = 1\n"), ("p", "x = 1\n" * 100)])
    assert scores[0] is not None
    assert scores[1] is None


def test_vllm_scorer_pickles_as_its_settings(serve, tiny_rm_dir: Path) -> None:
    double = serve(vllm_of(tiny_rm_dir))
    scorer = VllmScorer(double.url)
    expected = scorer.score(ITEMS)
    data = pickle.dumps(scorer)
    assert len(data) < 1000
    assert pickle.loads(data).score(ITEMS) == expected


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


@pytest.mark.parametrize("body", ["down\nerror: fake", json.dumps({"error": {"message": "down\nerror: fake"}})])
def test_what_a_server_says_is_one_line(body: str) -> None:
    assert _message(body) == "down error: fake"


def test_an_error_nested_beyond_json_is_shown() -> None:
    assert _message("[" * 100_000).startswith("[[[")

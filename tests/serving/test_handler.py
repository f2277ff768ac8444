"""Failures, fallbacks, logs, and callers that leave."""

import json
import logging
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from codescaler_plugin.serving.config import ServingConfig
from tests.serving.running import CODE, PROMPT, Running, body_of, query_of, reward_of, served

ROUTES = {
    "/get_reward": body_of(),
    "/v1/score": {"problem": "p", "code": CODE},
    "/classify": {"input": query_of()},
    "/slime": {"prompt": PROMPT, "response": CODE},
}


@pytest.mark.parametrize(
    ("code", "cause"), [("nan = 1\n", "no_score"), ("raise_ = 1\n", "scorer"), ("out_of_memory = 1\n", "scorer")]
)
def test_bad_sample_gets_the_fallback_a_counter_and_an_error(
    server: Running, caplog: pytest.LogCaptureFixture, code: str, cause: str
) -> None:
    name = f'codescaler_failures_total{{cause="{cause}"}}'
    before = server.metric(name)
    with caplog.at_level(logging.ERROR, "codescaler_plugin"):
        answer = server.json("/get_reward", {"query": [query_of(), query_of(code)], "prompts": [PROMPT] * 2})
    assert answer["rewards"] == [pytest.approx(reward_of(CODE)), 0.0]
    assert answer["scores"][1] == 0.0
    assert server.metric(name) == before + 1
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith(f"1 of 2 samples get the fallback reward: {cause}: ")


def test_fallback_is_what_was_asked_for_or_503() -> None:
    with served(ServingConfig(fallback=-1.5)) as running:
        assert running.json("/get_reward", body_of("nan = 1\n")) == {"rewards": [-1.5], "scores": [0.0]}
    with served(ServingConfig(fallback=None)) as running:
        refused = running.request("/get_reward", body_of("nan = 1\n"))
        assert (refused.status, refused.headers.get("retry-after")) == (422, None)  # it would have no score again
        assert refused.json()["detail"].startswith("no_score: ")
        refused = running.request("/get_reward", body_of("raise_ = 1\n"))
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["detail"].startswith("scorer: ")
        assert running.json("/get_reward", body_of())["rewards"] == pytest.approx([reward_of(CODE)])


def test_before_the_model_was_ever_ready_no_route_answers_with_a_fallback() -> None:
    with served(is_ready=False, command=("sleep", "60"), timeout=0.5) as running:
        for path, body in ROUTES.items():
            refused = running.request(path, body)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["detail"] == "the model is being loaded: no answer within 0.5 s, ask again"
        assert running.metric('codescaler_failures_total{cause="not_ready"}') == len(ROUTES)


def test_full_queue_answers_503_with_retry_after() -> None:
    with served(max_queue=2) as running, ThreadPoolExecutor(12) as pool:
        slow = [pool.submit(running.request, "/get_reward", body_of(f"slow = 1.{n}\n")) for n in range(12)]
        answers = [future.result() for future in slow]
        refused = [answer for answer in answers if answer.status == 503]
        assert 0 < len(refused) < 12
        assert {answer.status for answer in answers} == {200, 503}
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert re.match(r"\d samples wait already, at most 2 may", refused[0].json()["detail"])
        assert running.metric('codescaler_failures_total{cause="overloaded"}') == len(refused)


def test_client_that_goes_away_frees_its_place() -> None:
    with served() as running:
        host, port = running.url.removeprefix("http://").split(":")
        for name in ("busy", "busy_too"):  # both slots
            threading.Thread(target=running.request, args=("/get_reward", body_of(f"{name} = 1\nslow = 2\n"))).start()
            time.sleep(0.1)
        body = json.dumps(body_of("left = 1\n")).encode()
        head = f"POST /get_reward HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        clients = [socket.create_connection((host, int(port))) for _ in range(5)]
        for client in clients:
            client.sendall(head.encode() + b"\r\n\r\n" + body)
        while running.metric("codescaler_queue_samples") < 5:
            time.sleep(0.01)
        for client in clients:
            client.close()
        deadline = time.monotonic() + 1.5
        while running.metric("codescaler_queue_samples") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert running.metric("codescaler_queue_samples") == 0
        assert running.json("/get_reward", body_of())["rewards"] == pytest.approx([reward_of(CODE)])
        assert running.metric("codescaler_batch_samples_sum") == 3  # those that left were not scored


def test_bodies_are_neither_logged_nor_sent_back(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    secret = "s3cr3t_name"
    with caplog.at_level(logging.DEBUG):
        for code in ("x = 1\n", "nan = 1\n", "raise_ = 1\n", "x =\n"):
            server.json("/get_reward", body_of(f"{secret} = 1\n{code}"))
        refused = server.request("/get_reward", {"query": [secret], "labels": [1, 2]})
        assert refused.status == 422
        server.request("/get_reward", json.dumps(body_of(secret)).encode()[:-1])
    assert secret not in caplog.text
    assert secret not in refused.data.decode()


def test_bodies_are_logged_on_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), served(ServingConfig(log_bodies=True)) as running:
        running.json("/get_reward", body_of("s3cr3t_name = 1\n"))
    assert "s3cr3t_name" in caplog.text

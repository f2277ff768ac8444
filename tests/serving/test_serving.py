"""The server over real sockets: its routes with a worker process that has no model, then `codescaler serve` itself."""

import asyncio
import base64
import json
import logging
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codescaler_plugin import CodeScaler, CodeScalerConfig, ConfigError, __version__, load_scorer
from codescaler_plugin.records import Status
from codescaler_plugin.serving import supervisor
from codescaler_plugin.serving.app import ServingConfig, create_app
from codescaler_plugin.serving.backend import Backend, LocalBackend
from codescaler_plugin.serving.bodies import MAX_CHARS, MAX_ITEMS
from codescaler_plugin.serving.metrics import Metrics
from codescaler_plugin.serving.server import run_server
from codescaler_plugin.shaping import shape_reward

STUB = (sys.executable, "-m", "tests.serving.stub_worker")
CONFIG = CodeScalerConfig(model="stub")
PROMPT = "<|im_start|>user\nWrite solve(n).<|im_end|>\n<|im_start|>assistant\n"
CODE = "def solve(n):\n    return n + 1\n"
HTTP = urllib3.PoolManager(maxsize=64, retries=False, timeout=urllib3.Timeout(connect=10, read=60))


def score_of(code: str) -> float:
    return len(code) / 100 - 1


def reward_of(code: str) -> float:
    reward = shape_reward(score_of(code), Status.OK)
    assert reward is not None
    return reward


def probability_of(code: str) -> float:
    return 1 / (1 + math.exp(-score_of(code)))


def query_of(code: str = CODE) -> str:
    return f"{PROMPT}Sure:\n```python\n{code}```<|im_end|>"


def one(code: str = CODE, **fields: Any) -> dict[str, Any]:
    """The body that OpenRLHF sends."""
    return {"query": [query_of(code)], "prompts": [PROMPT], "labels": [""], **fields}


class Running:
    """A server that listens."""

    def __init__(self, url: str) -> None:
        self.url = url

    def request(self, path: str, body: Any = None, **headers: str) -> urllib3.BaseHTTPResponse:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        method = "GET" if body is None else "POST"
        return HTTP.request(method, self.url + path, body=data, headers={**kind, **headers})

    def json(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        answer = self.request(path, body)
        assert answer.status == status, answer.data[:500]
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    def metric(self, name: str) -> float:
        text = self.request("/metrics").data.decode()
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if re.match(rf"{re.escape(name)}(?![\w])", line)
        )

    def until_ready(self, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while self.request("/health").status != 200:
            assert time.monotonic() < deadline, self.request("/health").data
            time.sleep(0.05)


@contextmanager
def served(
    serving: ServingConfig | None = None,
    *,
    command: Any = STUB,
    config: CodeScalerConfig = CONFIG,
    backend: Backend | None = None,
    is_ready: bool = True,
    **options: Any,
) -> Iterator[Running]:
    """Routes, queue and worker; the loop runs in a thread."""
    backend = backend or LocalBackend(config, command=command, **{"timeout": 30.0, **options})
    server = uvicorn.Server(uvicorn.Config(create_app(backend, config, serving), log_config=None, access_log=False))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        running = Running(f"http://127.0.0.1:{listening.getsockname()[1]}")
        try:
            if is_ready:
                running.until_ready()
            yield running
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with served() as running:
        yield running


# The routes


def test_openrlhf_route_has_lists_of_rewards_and_of_values_between_0_and_1(server: Running) -> None:
    assert server.json("/get_reward", one()) == {
        "rewards": [pytest.approx(reward_of(CODE))],
        "scores": [pytest.approx(probability_of(CODE))],
    }


def test_openrlhf_route_keeps_the_order_of_a_batch(server: Running) -> None:  # up to 0.9.0
    codes = [f"x = {'1' * size}\n" for size in (900, 3, 50)]
    body = {"query": [query_of(code) for code in codes], "prompts": [PROMPT] * 3, "labels": ["a", {"b": 1}, None]}
    answer = server.json("/get_reward", body)
    assert answer["rewards"] == pytest.approx([reward_of(code) for code in codes])
    assert answer["scores"] == pytest.approx([probability_of(code) for code in codes])


def test_openrlhf_0_4_sends_the_query_alone(server: Running) -> None:
    assert server.json("/get_reward", {"query": [query_of()]})["rewards"] == pytest.approx([reward_of(CODE)])


@pytest.mark.parametrize("body", [{"query": []}, {"query": [], "prompts": [], "labels": []}])
def test_empty_batch_of_openrlhf_is_no_error(server: Running, body: Any) -> None:  # 0.9.1 to 0.11.0, several URLs
    assert server.json("/get_reward", body) == {"rewards": [], "scores": []}


def test_code_that_is_not_usable_is_worth_0_and_no_failure(server: Running) -> None:
    before = server.metric("codescaler_failures_total")
    for text in (PROMPT, PROMPT + "```python\nx =\n```", "", "```python\n", query_of() + query_of()):
        body = {"query": [text], "prompts": [PROMPT], "labels": [""]}
        assert server.json("/get_reward", body) == {"rewards": [0.0], "scores": [0.0]}
    assert server.metric("codescaler_failures_total") == before


def test_extra_logs_only_on_request() -> None:
    with served(ServingConfig(extra_logs=True)) as running:
        body = {"query": [query_of(), PROMPT, query_of("nan = 1\n")]}
        logs = running.json("/get_reward", body)["extra_logs"]
    assert logs == {"codescaler_valid": [1.0, 0.0, 1.0], "codescaler_fallback": [0.0, 0.0, 1.0]}


def test_score_route_takes_one_and_many_programs_and_answers(server: Running) -> None:
    judgement = {
        "reward": pytest.approx(reward_of(CODE)),
        "score": pytest.approx(score_of(CODE)),
        "status": "ok",
        "code": "",
        "failure": None,
    }
    program = {"problem": "p", "code": CODE}
    answer = {"problem": "p", "completion": f"```python\n{CODE}```"}
    invalid = {"problem": "p", "completion": "no code"}
    assert server.json("/v1/score", program) == {
        "scores": [pytest.approx(score_of(CODE))],
        "judgements": [judgement],
    }
    assert server.json("/v1/score", {"items": [program, answer, invalid]}) == {
        "scores": [pytest.approx(score_of(CODE)), pytest.approx(score_of(CODE)), None],
        "judgements": [
            judgement,
            {**judgement, "code": CODE},
            {"reward": 0.0, "score": None, "status": "no_block", "code": "", "failure": None},
        ],
    }
    assert server.json("/v1/score", {"items": []}) == {"scores": [], "judgements": []}


def test_score_route_puts_nothing_in_the_place_of_a_failure(server: Running) -> None:
    items = [{"problem": "p", "code": CODE}, {"problem": "p", "code": "nan = 1\n"}]
    answer = server.json("/v1/score", {"items": items})
    assert answer["scores"] == [pytest.approx(score_of(CODE)), None]
    assert answer["judgements"][1]["failure"]["kind"] == "no_score"
    refused = server.request("/v1/score", {"problem": "p", "code": "raise_ = 1\n"})
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")


def test_remote_scorer_is_a_client_of_the_score_route(server: Running) -> None:
    items = [("p", CODE), ("q", "x = 1\n"), ("p", "y = 2\n")]
    assert load_scorer(server.url).score(items) == pytest.approx([score_of(code) for _, code in items])


def test_classify_route_is_shaped_as_vllms(server: Running) -> None:
    answer = server.json("/classify", {"model": "any", "input": query_of(), "use_activation": False})
    assert answer.pop("id").startswith("classify-")
    assert abs(answer.pop("created") - time.time()) < 600
    row = {"index": 0, "label": "LABEL_0", "probs": [pytest.approx(reward_of(CODE))], "num_classes": 1}
    assert answer == {"object": "list", "model": "stub", "data": [row]}
    several = server.json("/classify", {"input": [query_of(), PROMPT]})
    assert [(row["index"], row["probs"]) for row in several["data"]] == [
        (0, [pytest.approx(probability_of(CODE))]),
        (1, [0.0]),
    ]
    turns = [
        {"role": "system", "content": "Be good."},
        {"role": "user", "content": "p"},
        {"role": "assistant", "content": f"```python\n{CODE}```"},
    ]
    said = server.json("/classify", {"messages": turns})
    assert said["data"][0]["probs"] == [pytest.approx(probability_of(CODE))]
    assert server.json("/classify", {"input": []})["data"] == []


def test_slime_gets_a_bare_number_for_its_single_sample(server: Running) -> None:
    answer = f"```python\n{CODE}```"
    for prompt in (PROMPT, [{"role": "user", "content": "p"}]):
        for label in (None, "42", {"problem": "q"}):
            body = {"prompt": prompt, "response": answer, "label": label}
            assert server.json("/slime", body) == pytest.approx(reward_of(CODE))
    assert server.json("/slime", {"prompt": [], "response": answer}, status=422)["detail"] == "prompt has no user turn"
    image = [{"role": "user", "content": [{"type": "image"}]}]  # a list prompt without a problem: the label's is taken
    for label, reward in (
        ({"problem": "q"}, reward_of(CODE)),
        ('{"question": [{"role": "user", "content": "q"}]}', reward_of(CODE)),
        ("42", 0.0),
        ({"problem": [{"role": "bot", "content": "q"}]}, 0.0),  # cannot be read: the prompt's is, as where it is text
    ):
        body = {"prompt": image, "response": answer, "label": label}
        assert server.json("/slime", body) == pytest.approx(reward)


def test_content_parts_are_read_on_every_route(server: Running) -> None:
    answer = f"```python\n{CODE}```"
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "p"}]}
    said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    silent = {"role": "assistant", "content": None, "tool_calls": [{}]}
    shared = [{"from": "human", "value": "p"}, {"from": "gpt", "value": answer}]
    for turns in ([user, said, silent], shared):
        found = server.json("/classify", {"messages": turns, "use_activation": False})
        assert found["data"][0]["probs"] == [pytest.approx(reward_of(CODE))]
    assert server.json("/slime", {"prompt": [user], "response": answer}) == pytest.approx(reward_of(CODE))
    scored = server.json("/v1/score", {"problem": [user], "completion": [said]})
    assert scored["scores"] == [pytest.approx(score_of(CODE))]
    assert server.json("/v1/score", {"problem": [user], "code": CODE})["scores"] == [pytest.approx(score_of(CODE))]
    label = {"problem": [user]}
    assert server.json("/get_reward", {"query": [answer], "prompts": ["x"], "labels": [label]})["rewards"] == [
        pytest.approx(reward_of(CODE))
    ]


def test_a_prompt_without_text_is_a_sample_without_a_problem(server: Running) -> None:
    image = {"role": "user", "content": [{"type": "image"}]}
    answer = f"```python\n{CODE}```"
    assert server.json("/slime", {"prompt": [image], "response": answer}) == 0.0
    items = [{"problem": [image], "completion": answer}, {"problem": "p", "completion": answer}]
    scored = server.json("/v1/score", {"items": items})
    assert "is empty" in scored["judgements"][0]["failure"]["reason"]
    assert scored["scores"] == [None, pytest.approx(score_of(CODE))]
    refused = server.json("/slime", {"prompt": [{"role": "bot", "content": "p"}], "response": answer}, status=422)
    assert "role 'bot'" in refused["detail"]
    said = [{"role": "user", "content": "p"}, {"role": "assistant", "content": answer}]
    for bad in ({"role": "usr", "content": "p"}, {"role": "user", "content": [3]}):
        refused = server.json("/v1/score", {"problem": [bad], "completion": said}, status=422)
        assert "usr" in refused["detail"] or "part of the content is int" in refused["detail"]
    assert "bot" in str(server.json("/classify", {"messages": [{"role": "bot", "content": "p"}]}, status=422))


def test_a_conversation_may_begin_the_answer(server: Running) -> None:
    user, label = {"role": "user", "content": "p"}, {"problem": "q"}
    thought = [user, {"role": "assistant", "content": "<think>\n"}]
    fence = [user, {"role": "assistant", "content": "```python\n"}]
    for prompt, answer, reward in (
        (thought, f"```python\n{CODE}```", 0.0),
        (thought, f"Hm.</think>\n```python\n{CODE}```", reward_of(CODE)),
        (fence, f"{CODE}```\nDone.", reward_of(CODE)),
        (fence, f"Here:\n```python\n{CODE}```\nDone.", reward_of(CODE)),
    ):
        assert server.json("/slime", {"prompt": prompt, "response": answer, "label": label}) == pytest.approx(reward)
        judged = server.json("/v1/score", {"problem": prompt, "completion": answer})["judgements"][0]
        assert judged["reward"] == pytest.approx(reward)


@pytest.mark.parametrize(
    "problem",
    [
        "Write solve.\n\nInput: ```\n1 2\n```",
        "Wrap the code in ```python\n```",
        "Answer:\n```python\n",
        "<|tag|>\nopens a record. Parse.",
        "[INST] tags surround text; strip [/INST].",
        "Put your reasoning into\n<think>",
    ],
)
def test_a_problem_that_is_stated_is_read_as_it_stands(server: Running, problem: str) -> None:
    answer = f"Here it is:\n\n```python\n{CODE}```"
    user = [{"role": "user", "content": problem}]
    assert server.json("/v1/score", {"problem": problem, "completion": answer})["scores"] == [
        pytest.approx(score_of(CODE))
    ]
    for body in ({"problem": user, "completion": answer}, {"problem": problem, "completion": answer}):
        assert server.json("/v1/score", body)["scores"] == [pytest.approx(score_of(CODE))]
    assert server.json("/slime", {"prompt": user, "response": answer}) == pytest.approx(reward_of(CODE))
    sent = {"query": [PROMPT + answer], "prompts": [PROMPT], "labels": [{"problem": problem}]}
    assert server.json("/get_reward", sent)["rewards"] == [pytest.approx(reward_of(CODE))]


def test_reasoning_that_the_prompt_opens_is_seen_by_every_host(server: Running) -> None:
    prompt = "<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n<think>\n"
    cut, whole = f"```python\n{CODE}```", f"Hm.\n</think>\n```python\n{CODE}```"
    for body in ({}, {"labels": [{"problem": "p"}]}):
        for answer, reward in ((cut, 0.0), (whole, reward_of(CODE))):
            sent = {"query": [prompt + answer], "prompts": [prompt], **body}
            assert server.json("/get_reward", sent)["rewards"] == [pytest.approx(reward)]
    assert server.json("/slime", {"prompt": prompt, "response": cut}) == 0.0
    assert server.json("/slime", {"prompt": prompt, "response": whole}) == pytest.approx(reward_of(CODE))


def test_openapi_describes_every_route(server: Running) -> None:
    document = server.json("/openapi.json")
    assert document["info"] == {
        "title": "codescaler",
        "version": __version__,
        "summary": "An execution-free reward for code.",
    }
    assert set(document["paths"]) == {"/get_reward", "/v1/score", "/classify", "/slime", "/health", "/metrics"}
    for path in ("/get_reward", "/v1/score", "/classify", "/slime"):
        described = document["paths"][path]["post"]
        assert described["description"]
        assert {"200", "400", "401", "413", "422", "503"} <= set(described["responses"])


def test_metrics_tell_queue_batches_latency_statuses_and_requests(server: Running) -> None:
    name = 'codescaler_requests_total{code="200",route="/get_reward"}'
    before, batches = server.metric(name), server.metric("codescaler_batch_samples_sum")
    invalid = server.metric('codescaler_statuses_total{status="syntax_error"}')
    server.json("/get_reward", {"query": [query_of("metrics = 1\n"), query_of("x =\n")]})
    assert server.metric(name) == before + 1
    assert server.metric("codescaler_batch_samples_sum") == batches + 2
    assert server.metric('codescaler_statuses_total{status="syntax_error"}') == invalid + 1
    assert server.metric("codescaler_worker_up") == 1
    assert server.metric("codescaler_queue_samples") == server.metric("codescaler_under_way_samples") == 0
    assert server.metric("codescaler_wait_seconds_count") > 0
    assert server.metric("codescaler_request_seconds_count") > 0
    assert server.metric("codescaler_batch_seconds_count") > 0


# Faults


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
        assert running.json("/get_reward", one("nan = 1\n")) == {"rewards": [-1.5], "scores": [0.0]}
    with served(ServingConfig(fallback=None)) as running:
        refused = running.request("/get_reward", one("nan = 1\n"))
        assert (refused.status, refused.headers.get("retry-after")) == (422, None)  # it would have no score again
        assert refused.json()["detail"].startswith("no_score: ")
        refused = running.request("/get_reward", one("raise_ = 1\n"))
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["detail"].startswith("scorer: ")
        assert running.json("/get_reward", one())["rewards"] == pytest.approx([reward_of(CODE)])


def test_worker_that_dies_under_load_is_started_again_and_nothing_is_lost(server: Running, tmp_path: Path) -> None:
    starts = server.metric("codescaler_worker_starts_total")
    lost = server.metric("codescaler_failures_total")
    codes = [f"x = {number}\n" for number in range(40)]
    codes[7] = f"die_once = '{tmp_path / 'died'}'\n"
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda code: server.json("/get_reward", one(code)), codes))
    assert (tmp_path / "died").exists()
    assert [answer["rewards"] for answer in answers] == [[pytest.approx(reward_of(code))] for code in codes]
    assert server.metric("codescaler_worker_starts_total") == starts + 1
    assert server.metric("codescaler_failures_total") == lost


def test_sample_that_kills_the_worker_again_and_again_gets_the_fallback_and_costs_no_other_its_reward(
    server: Running,
) -> None:
    codes = ["die = 1\n", *(f"y = {number}\n" for number in range(8))]
    body = {"query": [query_of(code) for code in codes]}
    assert server.json("/get_reward", body)["rewards"] == [
        0.0,
        *(pytest.approx(reward_of(code)) for code in codes[1:]),
    ]
    assert server.metric('codescaler_failures_total{cause="worker"}') >= 1


def test_sample_that_hangs_is_answered_within_the_timeout(caplog: pytest.LogCaptureFixture) -> None:
    with served(timeout=2.0) as running:
        start = time.monotonic()
        assert running.json("/get_reward", one("hang = 1\n"))["rewards"] == [0.0]
        assert time.monotonic() - start < 10
        running.until_ready()
    assert "the scoring worker is killed: no answer to 1 samples within 1 s" in caplog.text


ROUTES = {
    "/get_reward": one(),
    "/v1/score": {"problem": "p", "code": CODE},
    "/classify": {"input": query_of()},
    "/slime": {"prompt": PROMPT, "response": CODE},
}


def test_before_the_model_was_ever_ready_no_route_answers_with_a_fallback() -> None:
    with served(is_ready=False, command=("sleep", "60"), timeout=0.5) as running:
        for path, body in ROUTES.items():
            refused = running.request(path, body)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["detail"] == "the model is being loaded: no answer within 0.5 s, ask again"
        assert running.metric('codescaler_failures_total{cause="not_ready"}') == len(ROUTES)


def test_a_worker_that_hangs_while_it_loads_is_started_again(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """The first start is ready and dies, the second hangs, the third is ready."""
    ready = r"""printf '\000\000\000\017{"ready": true}'"""
    script = (
        f"echo >> starts; case $(wc -l < starts) in 1) {ready};; 2) exec sleep 60;; 3) {ready}; exec sleep 60;; esac"
    )
    worker = supervisor.Worker(CONFIG, Metrics(), ("/bin/sh", "-c", f"cd {tmp_path}; {script}"), load_timeout=0.5)

    async def until_third_start() -> list[str]:
        living = asyncio.create_task(worker.run())
        states = []
        while len(states) < 3 or worker.state:
            if worker.state and worker.state not in states:
                states.append(worker.state)
            await asyncio.sleep(0.01)
        living.cancel()
        await asyncio.wait([living])
        return states

    states = asyncio.run(asyncio.wait_for(until_third_start(), 20))
    hung = "the model was not ready within 0.5 s; see --load-timeout"
    assert states == ["the model is being loaded", "exit code 0", hung]
    assert f"the scoring worker is killed: {hung}" in caplog.text
    assert f"the scoring worker ended: {hung}. It is started again" in caplog.text


def test_full_queue_answers_503_with_retry_after() -> None:
    with served(max_queue=2) as running, ThreadPoolExecutor(12) as pool:
        slow = [pool.submit(running.request, "/get_reward", one(f"slow = 1.{n}\n")) for n in range(12)]
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
            threading.Thread(target=running.request, args=("/get_reward", one(f"{name} = 1\nslow = 2\n"))).start()
            time.sleep(0.1)
        body = json.dumps(one("left = 1\n")).encode()
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
        assert running.json("/get_reward", one())["rewards"] == pytest.approx([reward_of(CODE)])
        assert running.metric("codescaler_batch_samples_sum") == 3  # those that left were not scored


# Limits and safety


def test_key_is_asked_for_before_the_body_is_read() -> None:
    with served(ServingConfig(api_key="se:cret")) as running:
        for path in ("/get_reward", "/v1/score", "/classify", "/slime", "/nowhere"):
            refused = running.request(path, b"[" * 100)
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert running.request("/metrics").status == 401
        assert running.request("/health").status == running.request("/openapi.json").status == 200
        basic = "Basic " + base64.b64encode(b"any:se:cret").decode()
        for value in ("Bearer se:cret", "bearer  se:cret ", basic):
            assert running.request("/get_reward", one(), Authorization=value).status == 200
        for value in ("Bearer se:cre", "Bearer", "se:cret", "Basic ü", "Basic !", "Basic c2U=", "Bearer ü", ""):
            assert running.request("/get_reward", one(), Authorization=value).status == 401
        url = running.url.replace("http://", "http://any:se%3Acret@")  # as OpenRLHF can be told
        parsed = urllib3.util.parse_url(url)
        assert parsed.auth == "any:se%3Acret"


@pytest.mark.parametrize(
    "settings_", [{"api_key": ""}, {"api_key": " k"}, {"api_key": "ü"}, {"fallback": math.nan}, {"fallback": math.inf}]
)
def test_settings_that_cannot_work_are_refused(settings_: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ServingConfig(**settings_)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org"])
def test_other_addresses_need_a_key(host: str) -> None:
    backend = LocalBackend(CONFIG, command=STUB)
    with pytest.raises(ConfigError, match="can be reached from other machines: give --api-key, or --insecure"):
        run_server(CONFIG, ServingConfig(), backend, host=host, port=0, drain_seconds=1)


def test_address_in_use_is_an_error_that_names_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        backend = LocalBackend(CONFIG, command=STUB)
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*give another --port"):
            run_server(CONFIG, ServingConfig(), backend, host="127.0.0.1", port=port, drain_seconds=1)


@pytest.mark.parametrize("shaping", ["rank", "group_center"])
def test_shape_that_compares_a_group_cannot_be_served(shaping: str) -> None:
    config = replace(CONFIG, shaping=shaping)
    with pytest.raises(ConfigError, match="here they come one by one"):
        create_app(LocalBackend(config, command=STUB), config)


def test_bodies_items_and_texts_are_bounded() -> None:
    with served(ServingConfig(max_body=20_000_000)) as running:
        too_large = running.request("/get_reward", b" " * 20_000_001)
        assert (too_large.status, too_large.json()["detail"]) == (
            413,
            "the body has 20000001 bytes, at most 20000000 are read",
        )
        pieces = HTTP.request(
            "POST", running.url + "/get_reward", body=(b" " * 1_000_000 for _ in range(30)), chunked=True
        )
        assert pieces.status == 413
        assert running.json("/get_reward", {"query": [""] * (MAX_ITEMS + 1)}, status=422)
        assert running.json("/get_reward", {"query": ["x" * (MAX_CHARS + 1)]}, status=422)
        assert running.json("/get_reward", {"query": ["x" * MAX_CHARS]}) == {"rewards": [0.0], "scores": [0.0]}
        assert running.json("/get_reward", one())["rewards"] == pytest.approx([reward_of(CODE)])


def test_a_body_that_does_not_come_is_answered_408_and_one_under_way_is_not_cut() -> None:
    with served(ServingConfig(receive_seconds=0.5)) as running:
        with half_sent(running, length=100) as client:
            answer = b"".join(iter(lambda: client.recv(4096), b""))  # until it is closed
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"the body did not come within 0.5 s: 9 bytes came" in answer
        assert running.json("/get_reward", one("slow = 1.0\n"))["rewards"] == pytest.approx(
            [reward_of("slow = 1.0\n")]
        )


def test_bodies_that_are_held_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codescaler_plugin.serving.app.BODIES_BYTES", 0)  # four times max_body, then
    with served(ServingConfig(max_body=20_000)) as running:
        for name in ("busy", "busy_too"):  # both slots
            threading.Thread(target=running.request, args=("/get_reward", one(f"{name} = 1\nslow = 2\n"))).start()
        large = one("x = 1\n" * 2_500)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: running.request("/get_reward", large), range(8)))
        refused = [answer for answer in answers if answer.status == 503]
        assert {answer.status for answer in answers} == {200, 503}
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert re.match(
            r"bodies of \d+ bytes are read or wait already, at most 80000 may", refused[0].json()["detail"]
        )
        until_held(running, 0)  # what keeps the slots busy has been answered, too
        with half_sent(running, length=20_000, chunked=True):  # of no known length
            until_held(running, 9)
        until_held(running, 0)
        assert running.json("/get_reward", large)["rewards"] == pytest.approx([reward_of("x = 1\n" * 2_500)])


def until_held(running: Running, size: int) -> None:
    deadline = time.monotonic() + 10
    while running.metric("codescaler_body_bytes") != size:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def half_sent(running: Running, *, length: int, chunked: bool = False) -> Iterator[socket.socket]:
    """A connection with a request whose body ends after nine bytes."""
    host, port = running.url.removeprefix("http://").split(":")
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(f"POST /get_reward HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
        client.sendall(b"9\r\n123456789\r\n" if chunked else b"123456789")
        yield client


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"query": NaN}', b"null", b'"x"', b"{}"])
def test_what_is_no_body_is_refused_in_json(server: Running, body: bytes) -> None:
    answer = server.request("/get_reward", body)
    assert answer.status in (400, 422)
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/get_reward", {"query": ["a"], "prompts": ["a", "b"]}, "2 prompts for 1 queries"),
        ("/get_reward", {"query": ["a"], "labels": [1, 2]}, "2 labels for 1 queries"),
        ("/get_reward", {"query": "a"}, "valid list"),
        ("/v1/score", {"problem": "p"}, "either code or completion"),
        ("/v1/score", {"problem": "p", "code": "x", "completion": "y"}, "either code or completion"),
        ("/v1/score", {"problem": "p", "code": "x", "path": "/etc/passwd"}, "Extra inputs"),
        ("/classify", {}, "either input"),
        ("/classify", {"input": [1, 2]}, "valid string"),
        ("/classify", {"messages": []}, "user turn and an assistant turn"),
        ("/v1/score", [], "valid dictionary"),
        ("/v1/score", {"items": {}}, "valid list"),
        ("/v1/score", {"items": [{"problem": "p", "code": 3}]}, '["body", "items", 0, "code"]'),
        ("/v1/score", {"items": [{"problem": 7, "code": "x"}]}, "expected text, or messages in a list"),
        ("/v1/score", {"items": [], "problem": "p"}, '["body", "problem"], "msg": "Extra inputs'),
        ("/v1/score", {"problem": "p", "completion": [{"role": 3}]}, '["body", "completion", 0, "role"]'),
        ("/classify", {"input": 1}, "expected text, or a list of texts"),
        ("/slime", {"prompt": {"role": "user"}, "response": "x"}, "expected text, or messages in a list"),
        ("/slime", {"prompt": [{"content": 3}], "response": "x"}, "expected text, a list of parts, an object or null"),
    ],
)
def test_body_of_another_form_is_told_what_is_wrong_with_it(server: Running, path: str, body: Any, said: str) -> None:
    found = server.json(path, body, status=422)["detail"]
    detail = json.dumps(found)
    assert said in detail
    assert "function" not in detail
    assert len(found) == (2 if body == {"input": [1, 2]} else 1)


def test_bodies_are_neither_logged_nor_sent_back(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    secret = "s3cr3t_name"
    with caplog.at_level(logging.DEBUG):
        for code in ("x = 1\n", "nan = 1\n", "raise_ = 1\n", "x =\n"):
            server.json("/get_reward", one(f"{secret} = 1\n{code}"))
        refused = server.request("/get_reward", {"query": [secret], "labels": [1, 2]})
        assert refused.status == 422
        server.request("/get_reward", json.dumps(one(secret)).encode()[:-1])
    assert secret not in caplog.text
    assert secret not in refused.data.decode()


def test_bodies_are_logged_on_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), served(ServingConfig(log_bodies=True)) as running:
        running.json("/get_reward", one("s3cr3t_name = 1\n"))
    assert "s3cr3t_name" in caplog.text


# Fuzz: whatever is in a body, the answer is JSON, soon, and no fault of the server

ODD = [
    "",
    "\x00",
    "\ud800",
    "<|im_start|>",
    "```python\n",
    "```",
    "</think>",
    "[INST]",
    "\u202e",
    "(" * 3000,
    "`" * 999,
]
texts = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from([*ODD, PROMPT, CODE, query_of(), "<|im_start|>assistant\n"]), max_size=6).map("".join),
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
labels = st.one_of(
    anything, st.builds(lambda text: {"problem": text}, texts), texts.map(lambda t: json.dumps({"problem": t}))
)
rows = st.lists(st.tuples(texts, texts, labels), max_size=4)
well_formed = rows.map(
    lambda found: {"query": [r[0] for r in found], "prompts": [r[1] for r in found], "labels": [r[2] for r in found]}
)
fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def finite(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is float and math.isfinite(value) for value in values)


@fuzz
@given(body=well_formed)
def test_whatever_the_texts_are_each_gets_a_finite_reward(server: Running, body: dict[str, Any]) -> None:
    answer = server.json("/get_reward", body)
    assert set(answer) == {"rewards", "scores"}
    assert len(answer["rewards"]) == len(answer["scores"]) == len(body["query"])
    assert finite(answer["rewards"])
    assert finite(answer["scores"])
    assert all(0 <= value <= 1 for value in answer["scores"])


@fuzz
@given(
    path=st.sampled_from(["/get_reward", "/v1/score", "/classify", "/slime"]),
    body=st.one_of(
        anything,
        st.dictionaries(
            st.sampled_from(
                ["query", "prompts", "labels", "items", "problem", "code", "input", "messages", "prompt", "response"]
            ),
            st.one_of(anything, st.lists(texts, max_size=2)),
        ),
    ),
)
def test_whatever_the_body_is_the_answer_is_json_and_no_500(server: Running, path: str, body: Any) -> None:
    answer = server.request(path, json.dumps(body).encode())
    assert answer.status in (200, 422)
    answer.json()


@fuzz
@given(
    body=well_formed.map(lambda body: json.dumps(body).encode()),
    where=st.floats(0, 1),
    junk=st.binary(max_size=6),
    cut=st.integers(0, 5),
)
def test_mangled_bytes_are_refused_or_answered(
    server: Running, body: bytes, where: float, junk: bytes, cut: int
) -> None:
    place = int(where * len(body))
    answer = server.request("/get_reward", body[:place] + junk + body[place + cut :])
    assert answer.status in (200, 400, 422)
    answer.json()


# The command, with the embedded model


class Command:
    """`codescaler serve` as a process manager runs it."""

    def __init__(self, log: Path, *arguments: str, before: Sequence[str] = ()) -> None:
        self.log = log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        script = str(Path(sys.executable).with_name("codescaler"))
        command = [*before, script, "serve", "--port", str(port), *arguments]
        with log.open("w") as sink:
            self.process = subprocess.Popen(command, stdout=sink, stderr=sink)
        self.running = Running(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert self.process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    started = Command(tmp_path_factory.mktemp("serve") / "log", "--model", "builtin", "--max-wait", "2")
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()


@pytest.mark.parametrize(
    ("ending", "cause"), [("exit 3", "exit code 3"), ("kill -9 $$", "killed by SIGKILL, as when memory runs out")]
)
def test_the_cause_of_a_workers_end_is_its_own(ending: str, cause: str) -> None:
    """Its output ends before it does."""
    metrics = Metrics()
    script = f"exec 1>&-; sleep 0.05; {ending}"
    worker = supervisor.Worker(CONFIG, metrics, command=("/bin/sh", "-c", script))

    async def die() -> None:
        living = asyncio.create_task(worker.run())
        while worker.state == "the model is being loaded":
            await asyncio.sleep(0.01)
        living.cancel()

    asyncio.run(die())
    assert worker.state == cause


def test_a_worker_that_dies_while_it_is_stopped_is_not_started_again() -> None:
    async def stopped() -> bool:
        worker = supervisor.Worker(CONFIG, Metrics(), command=("/bin/sh", "-c", "exec sleep 30"))
        living = asyncio.create_task(worker.run())
        await asyncio.sleep(0.02)
        worker.kill("it hangs")
        await asyncio.sleep(random.random() * 0.004)
        living.cancel()
        await asyncio.wait([living], timeout=5)
        return living.cancelled()

    async def all_stopped() -> list[bool]:
        return [await stopped() for _ in range(100)]

    assert all(asyncio.run(all_stopped()))


@pytest.mark.timeout(400)
def test_the_command_from_loading_over_a_killed_worker_to_its_end(command: Command) -> None:
    """One story, since loading the model is what takes time."""
    running = command.running
    loading = running.request("/health")  # listening, with the model still on its way
    assert (loading.status, loading.json()) == (503, {"detail": "the model is being loaded"})
    assert loading.headers["retry-after"] == "1"
    assert running.metric("codescaler_worker_up") == 0

    early = running.json("/get_reward", one())  # a slow answer, but an answer
    assert running.json("/health") == {"status": "ready", "model": "builtin"}

    scaler = CodeScaler(config=CodeScalerConfig(model="builtin"))
    codes = [f"def solve(n):\n    return n + {number}\n" for number in range(24)]
    judged = scaler.judge(["Write solve(n)."] * 25, [f"```python\n{code}```" for code in [CODE, *codes]])
    expected = [judgement.reward for judgement in judged]
    assert len(set(expected)) > 5
    assert early["rewards"] == pytest.approx(expected[:1], abs=1e-5)

    [worker] = psutil.Process(command.process.pid).children()
    worker.send_signal(signal.SIGHUP)  # of a terminal that closes; it waits for its parent
    with ThreadPoolExecutor(24) as pool:
        futures = [pool.submit(running.json, "/get_reward", one(code)) for code in codes]
        time.sleep(0.05)
        worker.kill()
        answers = [future.result() for future in futures]
    assert [answer["rewards"][0] for answer in answers] == pytest.approx(expected[1:], abs=1e-5)
    deadline = time.monotonic() + 60  # a machine may answer all of them before the worker dies
    while running.metric("codescaler_worker_starts_total") < 2 or running.metric("codescaler_worker_up") < 1:
        assert time.monotonic() < deadline, "the worker was not started again"
        time.sleep(0.05)
    assert running.metric("codescaler_worker_starts_total") == 2
    assert running.metric("codescaler_failures_total") == 0
    assert running.metric("codescaler_scorer_total") > 0

    with ThreadPoolExecutor(8) as pool:  # accepted work is answered after SIGTERM
        before = running.metric("codescaler_batch_samples_sum")
        futures = [pool.submit(running.json, "/get_reward", one(f"{CODE}last = {n}\n")) for n in range(8)]
        deadline = time.monotonic() + 10
        while running.metric("codescaler_batch_samples_sum") == before and time.monotonic() < deadline:
            time.sleep(0.005)
        assert command.stop() == 0
        assert all(len(future.result()["rewards"]) == 1 for future in futures)
    log = command.log.read_text()
    assert "killed by SIGKILL, as when memory runs out. It is started again" in log
    assert "Traceback" not in log
    assert "solve" not in log


def test_command_with_a_model_that_cannot_be_had_ends_with_the_reason(tmp_path: Path) -> None:
    started = Command(tmp_path / "log", "--model", "/nowhere/model")
    assert started.process.wait(120) == 1
    assert "reward model directory /nowhere/model does not exist" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "give --api-key, or --insecure"),
        (["--backend", "localhost:8000"], "expected an address such as vllm+http://host:8000"),
        (["--on-failure", "stop"], "--on-failure is 'stop': expected a reward or 'error'"),
        (["--on-failure", "nan"], "expected a finite number"),
        (["--api-key", ""], "api_key must be ASCII text"),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(arguments: list[str], said: str) -> None:
    from typer.testing import CliRunner

    from codescaler_plugin.cli import app

    result = CliRunner().invoke(app, ["serve", "--model", "builtin", *arguments])
    assert result.exit_code == 1
    assert said in result.stderr


def test_front_imports_no_torch_and_listens_within_two_seconds_of_cpu(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from codescaler_plugin.serving import app, backend, server\n"
        "assert not {'torch', 'transformers', 'datasets', 'ray'} & set(sys.modules)\n"
        "print(time.process_time())\n"
    )
    taken = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(taken.stdout) < 2.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_it_with_0_while_the_model_is_still_loaded(tmp_path: Path, number: int) -> None:
    started = Command(tmp_path / "log", "--model", "builtin")
    [worker] = _children(started.process.pid)
    assert started.stop(number) == 0
    _, alive = psutil.wait_procs([worker], timeout=20)
    assert alive == []
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_nohup_keeps_sighup_away(tmp_path: Path) -> None:
    started = Command(tmp_path / "log", "--model", "builtin", before=["nohup"])
    started.process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        started.process.wait(1)
    assert started.stop() == 0


def test_descriptors_that_run_out_are_one_line_and_cost_nothing_but_new_connections(tmp_path: Path) -> None:
    limited = ["bash", "-c", 'ulimit -n 64; exec "$@"', "limited"]
    started = Command(tmp_path / "log", "--model", "builtin", before=limited)
    host, port = started.running.url.removeprefix("http://").split(":")
    clients = [socket.create_connection((host, int(port)), 10) for _ in range(200)]
    refused = HTTPConnection(host, int(port), timeout=10)
    refused.request("GET", "/health")
    answer = refused.getresponse()
    assert (answer.status, answer.headers["retry-after"], answer.read()) == (503, "1", b"")
    [worker] = _children(started.process.pid)
    worker.kill()  # its next start finds descriptors
    deadline = time.monotonic() + 30
    while worker in psutil.Process(started.process.pid).children() or not _children(started.process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for client in clients:
        client.close()
    deadline = time.monotonic() + 10
    while (health := started.running.request("/health")).data == b"":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert health.json()["detail"] == "killed by SIGKILL, as when memory runs out"
    assert started.stop() == 0
    log = (tmp_path / "log").read_text()
    assert log.count("32 connections are open, all that 64 descriptors allow") == 1
    assert "Traceback" not in log
    assert len(log.splitlines()) < 20


def test_worker_ends_with_a_front_that_was_killed(tmp_path: Path) -> None:
    started = Command(tmp_path / "log", "--model", "builtin")
    [worker] = _children(started.process.pid)
    time.sleep(0.5)
    os.kill(started.process.pid, signal.SIGKILL)
    started.process.wait()
    _, alive = psutil.wait_procs([worker], timeout=20)
    assert alive == []


def _children(parent: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 30
    while not (children := psutil.Process(parent).children()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return children


def test_the_documentation_needs_no_other_host_and_no_key() -> None:
    with served(ServingConfig(api_key="k")) as running:
        start = running.request("/")
        assert (start.status, start.headers["location"]) == (307, "/docs")
        page = running.request("/docs").data.decode()
        used = re.findall(r"(?:src|href)=\"([^\"]+)\"", page)
        assert len(used) == 3
        assert "http" not in "".join(used)
        for path in used:
            assert running.request(path).status == 200
        assert "http" not in page.replace("http-equiv", "")
        for path in (
            "/static-offline-docs/../v1/score",
            "/static-offline-docs/..%2Fv1/score",
            "/static-offline-docs/",
        ):
            raw = HTTPConnection(running.url.removeprefix("http://"))  # sends the path as it stands
            raw.request("POST", path, b"{}", {"Content-Type": "application/json"})
            assert raw.getresponse().status in (401, 404, 405)
            raw.close()

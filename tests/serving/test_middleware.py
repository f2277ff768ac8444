"""The key, and the limits of bodies."""

import base64
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import urllib3

from codescaler_plugin.serving.config import ServingConfig
from codescaler_plugin.serving.protocols.fields import MAX_CHARS, MAX_ITEMS
from tests.serving.running import CODE, HTTP, Running, body_of, reward_of, served


def test_key_is_asked_for_before_the_body_is_read() -> None:
    with served(ServingConfig(api_key="se:cret")) as running:
        for path in ("/get_reward", "/v1/score", "/classify", "/slime", "/nowhere"):
            refused = running.request(path, b"[" * 100)
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert running.request("/metrics").status == 401
        start = running.request("/")  # shows what was sent
        assert (start.status, start.headers["www-authenticate"]) == (401, 'Basic realm="codescaler"')
        assert running.request("/health").status == running.request("/openapi.json").status == 200
        basic = "Basic " + base64.b64encode(b"any:se:cret").decode()
        for value in ("Bearer se:cret", "bearer  se:cret ", basic):
            assert running.request("/get_reward", body_of(), Authorization=value).status == 200
        for value in ("Bearer se:cre", "Bearer", "se:cret", "Basic ü", "Basic !", "Basic c2U=", "Bearer ü", ""):
            assert running.request("/get_reward", body_of(), Authorization=value).status == 401
        url = running.url.replace("http://", "http://any:se%3Acret@")  # as OpenRLHF can be told
        parsed = urllib3.util.parse_url(url)
        assert parsed.auth == "any:se%3Acret"


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
        assert running.json("/get_reward", body_of())["rewards"] == pytest.approx([reward_of(CODE)])


def test_a_body_that_does_not_come_is_answered_408_and_one_under_way_is_not_cut() -> None:
    with served(ServingConfig(receive_seconds=0.5)) as running:
        with half_sent(running, length=100) as client:
            answer = b"".join(iter(lambda: client.recv(4096), b""))  # until it is closed
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"the body did not come within 0.5 s: 9 bytes came" in answer
        assert running.json("/get_reward", body_of("slow = 1.0\n"))["rewards"] == pytest.approx(
            [reward_of("slow = 1.0\n")]
        )


def test_bodies_that_are_held_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codescaler_plugin.serving.middleware.MAX_HELD", 0)  # four times max_body, then
    with served(ServingConfig(max_body=20_000)) as running:
        for name in ("busy", "busy_too"):  # both slots
            threading.Thread(target=running.request, args=("/get_reward", body_of(f"{name} = 1\nslow = 2\n"))).start()
        large = body_of("x = 1\n" * 2_500)
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

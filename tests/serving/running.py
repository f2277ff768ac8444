"""A server over real sockets for tests: its routes in this process, or `codescaler serve` in another."""

import json
import math
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import urllib3
import uvicorn

from codescaler_plugin import CodeScalerConfig
from codescaler_plugin.records import Status
from codescaler_plugin.serving.app import create_app
from codescaler_plugin.serving.backend import Backend, LocalBackend
from codescaler_plugin.serving.config import ServingConfig
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


def body_of(code: str = CODE, **fields: Any) -> dict[str, Any]:
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


def children(parent: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 30
    while not (children := psutil.Process(parent).children()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return children

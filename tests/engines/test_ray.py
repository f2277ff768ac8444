"""The routes on a real Ray Serve: `python -m venv ray && ray/bin/pip install -e ".[serve]" "ray[serve]==2.60.0"`, then
`RAY_PYTHON=ray/bin/python pytest -n 0 --no-cov -m engine tests/engines/test_ray.py`. Ray 2.55, which OpenRLHF pins, does too:
`install_openrlhf.sh`."""

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3

from codescaler_plugin import CodeScaler, CodeScalerConfig

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif("RAY_PYTHON" not in os.environ, reason="RAY_PYTHON names no Python with Ray Serve"),
]
STARTED_WITHIN = 400  # seconds
REPLICAS = 2
SERVE = """
import json, signal, sys, threading
import ray
from ray import serve
from codescaler_plugin.serving.ray_app import RaySettings, app
for attempt in range(6):  # on a busy machine Ray's own 30 s for its start may not do
    try:
        ray.init(num_cpus=4, include_dashboard=False, object_store_memory=100_000_000)
        break
    except Exception as error:
        print(error, flush=True)
        ray.shutdown()
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(app(RaySettings(model="builtin", num_cpus=1, **json.loads(sys.argv[2]))))
signal.signal(signal.SIGTERM, lambda *_: ended.set())
ended = threading.Event()
ended.wait()
serve.shutdown()
ray.shutdown()
"""
HTTP = urllib3.PoolManager(maxsize=32, retries=False, timeout=180)
PROMPT = "<|im_start|>user\nWrite solve(n) that returns n + {n}.<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with running(tmp_path_factory.mktemp("ray") / "log", 200, min_replicas=2, max_replicas=2) as found:
        yield found


@contextmanager
def running(log: Path, health: int, **ray_settings: float) -> Iterator[tuple[str, int]]:
    """URL, and the process under which all of Ray runs, once `/health` answers as told."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PYTHONPATH": str(Path.cwd()),
    }
    environment = {**os.environ, **settings}
    command = [os.environ["RAY_PYTHON"], "-c", SERVE, str(port), json.dumps(ray_settings)]
    with log.open("w") as sink, subprocess.Popen(command, stdout=sink, stderr=sink, env=environment) as process:
        try:
            deadline = time.monotonic() + STARTED_WITHIN
            while True:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                try:
                    if HTTP.request("GET", f"http://127.0.0.1:{port}/health").status == health:
                        break
                except urllib3.exceptions.HTTPError:
                    pass
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()


def sample(number: int) -> dict[str, Any]:
    prompt = PROMPT.format(n=number % 5)
    code = f"def solve(n):\n    return n + {number}\n"
    return {"query": [f"{prompt}```python\n{code}```<|im_end|>"], "prompts": [prompt], "labels": [""]}


def reward(url: str, body: dict[str, Any]) -> float:
    answer = HTTP.request("POST", f"{url}/get_reward", json=body)
    assert answer.status == 200, answer.data[:500]
    [value] = answer.json()["rewards"]
    return float(value)


def expected(numbers: range) -> list[float | None]:
    scaler = CodeScaler(config=CodeScalerConfig(model="builtin"))
    problems = [f"Write solve(n) that returns n + {number % 5}." for number in numbers]
    texts = [f"```python\ndef solve(n):\n    return n + {number}\n```" for number in numbers]
    return [judgement.reward for judgement in scaler.judge(problems, texts)]


def replicas(root: int) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(root).children(recursive=True):
        try:
            if "ServeReplica:default:RewardModel" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_rewards_equal_those_of_direct_scoring_through_two_replicas(server: tuple[str, int]) -> None:
    url, root = server
    deadline = time.monotonic() + STARTED_WITHIN
    while len(replicas(root)) < REPLICAS and time.monotonic() < deadline:
        time.sleep(0.5)
    assert len(replicas(root)) == REPLICAS
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: reward(url, sample(number)), range(32)))
    assert found == pytest.approx(expected(range(32)), abs=1e-5)
    empty = HTTP.request("POST", f"{url}/get_reward", json={"query": []})
    assert (empty.status, json.loads(empty.data)) == (200, {"rewards": [], "scores": []})


def test_replica_that_is_killed_under_load_costs_no_sample_its_reward(server: tuple[str, int]) -> None:
    url, root = server
    numbers = range(100, 300)
    before = replicas(root)
    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(reward, url, sample(number)) for number in numbers]
        while sum(future.done() for future in futures) < 40:
            time.sleep(0.01)
        before[0].kill()
        found = [future.result() for future in futures]
    assert found == pytest.approx(expected(numbers), abs=1e-5)
    deadline = time.monotonic() + STARTED_WITHIN
    while len(set(replicas(root)) - {before[0]}) < REPLICAS and time.monotonic() < deadline:
        time.sleep(0.5)
    assert len(set(replicas(root)) - {before[0]}) == REPLICAS


def test_before_a_replica_was_ever_ready_no_sample_gets_a_fallback(tmp_path: Path) -> None:
    with running(tmp_path / "log", 503, num_gpus=1, timeout=3) as (url, _):  # Ray waits for a GPU that is not there
        for _ in range(2):
            refused = HTTP.request("POST", f"{url}/get_reward", json=sample(1))
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["detail"] == "the model is being loaded: no answer within 3 s, ask again"

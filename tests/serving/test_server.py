"""`codescaler serve` itself, with the embedded model: addresses, signals, descriptors, a killed worker."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from codescaler_plugin import CodeScaler, CodeScalerConfig, ConfigError
from codescaler_plugin.serving.backend import LocalBackend
from codescaler_plugin.serving.config import ServingConfig
from codescaler_plugin.serving.server import run_server
from tests.serving.running import CODE, CONFIG, STUB, Command, body_of, children


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org"])
def test_other_addresses_need_a_key(host: str) -> None:
    backend = LocalBackend(CONFIG, command=STUB)
    with pytest.raises(ConfigError, match="can be reached from other machines: give `api_key=`, or `insecure=`"):
        run_server(CONFIG, ServingConfig(), backend, host=host, port=0, drain_seconds=1)


def test_address_in_use_is_an_error_that_names_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        backend = LocalBackend(CONFIG, command=STUB)
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*give another `port=`"):
            run_server(CONFIG, ServingConfig(), backend, host="127.0.0.1", port=port, drain_seconds=1)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    started = Command(tmp_path_factory.mktemp("serve") / "log", "--model", "builtin", "--max-wait", "2")
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()


@pytest.mark.timeout(400)
def test_the_command_from_loading_over_a_killed_worker_to_its_end(command: Command) -> None:
    """One story, since loading the model is what takes time."""
    running = command.running
    loading = running.request("/health")  # listening, with the model still on its way
    assert (loading.status, loading.json()) == (503, {"detail": "the model is being loaded"})
    assert loading.headers["retry-after"] == "1"
    assert running.metric("codescaler_worker_up") == 0

    early = running.json("/get_reward", body_of())  # a slow answer, but an answer
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
        futures = [pool.submit(running.json, "/get_reward", body_of(code)) for code in codes]
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
        futures = [pool.submit(running.json, "/get_reward", body_of(f"{CODE}last = {n}\n")) for n in range(8)]
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
    [worker] = children(started.process.pid)
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
    [worker] = children(started.process.pid)
    worker.kill()  # its next start finds descriptors
    deadline = time.monotonic() + 30
    while worker in psutil.Process(started.process.pid).children() or not children(started.process.pid):
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

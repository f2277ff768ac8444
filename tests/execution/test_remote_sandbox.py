"""The remote executor against a server that follows SandboxFusion's published `POST /run_code`."""

import base64
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin import SandboxError, http_client
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.execution.remote_sandbox import RemoteSandbox
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Problem
from tests.doubles import Double, Serve
from tests.execution.programs import CHECK, HONEST, HOSTILE, calls, program, result, script


def run_code(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """As documented at bytedance.github.io/SandboxFusion: the program runs in a folder with `files`, whose `fetch_files`
    come back; what is printed may be lost, as some of its versions do."""
    if path != "/run_code":
        return 404, {"detail": "Not Found"}
    if body.get("language") != "python" or not isinstance(body.get("code"), str):
        return 422, {"detail": [{"loc": ["body", "language"], "msg": "field required"}]}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in body.get("files", {}).items():
            Path(folder, name).write_bytes(base64.b64decode(content))
        Path(folder, "tmp1.py").write_text(body["code"])
        command = [sys.executable, str(Path(folder, "tmp1.py"))]
        run: dict[str, Any] = {"execution_time": 0.1, "return_code": None, "stdout": "", "stderr": ""}
        try:
            done = subprocess.run(
                command,
                input=(body.get("stdin") or "").encode(),
                capture_output=True,
                cwd=folder,
                timeout=body.get("run_timeout", 10),
                env={"PATH": os.environ["PATH"]},
            )
        except subprocess.TimeoutExpired:
            run["status"] = "TimeLimitExceeded"
        else:
            run |= {"status": "Finished", "return_code": done.returncode, "stderr": done.stderr.decode()}
        found = {
            name: base64.b64encode(Path(folder, name).read_bytes()).decode()
            for name in body.get("fetch_files", [])
            if Path(folder, name).is_file()
        }
    status = "Success" if run["return_code"] == 0 else "Failed"
    answer = {"status": status, "message": "", "compile_result": None, "run_result": run, "executor_pod_name": None}
    return 200, answer | {"files": found}


@pytest.fixture(scope="module")
def service() -> Iterator[Double]:
    double = Double(run_code)
    yield double
    double.close()


@pytest.fixture(scope="module")
def remote(service: Double) -> RemoteSandbox:
    return RemoteSandbox(service.url, timeout=2.0, memory_mb=512, workers=2)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits before it asks again."""
    monkeypatch.setattr(http_client, "_FIRST_PAUSE", 0.01)


JOBS: dict[str, tuple[str, Problem]] = {
    "calls-right": (HONEST, calls((3, 4), (10, 11))),
    "calls-wrong": ("def solve(n):\n    return 4\n", calls((3, 4), (10, 11))),
    "calls-raise": ("def solve(n):\n    return 1 / 0\n", calls()),
    "calls-of-a-method": ("class Solution:\n    def f(self, n):\n        return (n,)\n", calls((3, [3]), entry_point="Solution.f")),
    "calls-syntax": ("def solve(n:\n", calls()),
    "calls-timeout": ("def solve(n):\n    while n > 3:\n        pass\n    return 4\n", calls((3, 4), (10, 11))),
    "calls-exit": ("import os\ndef solve(n):\n    os._exit(0)\n", calls()),
    "calls-import-exit": ("import sys\nsys.exit(0)\n", calls()),
    "calls-memory": ("def solve(n):\n    return len(bytearray(10 << 30))\n", calls()),
    "calls-object": ("def solve(n):\n    return object()\n", calls()),
    "calls-preamble": ("def solve(n):\n    return one + n\n", calls(preamble="one = 1\n")),
    "surrogate": ("solve = \ud800\n", calls()),
    "script-right": (HONEST, script(CHECK, "assert solve(1) == 2")),
    "script-wrong": ("def solve(n):\n    return 4\n", script(CHECK)),
    "script-exit": ("import sys\nsys.exit(0)\n", script(CHECK)),
    "script-timeout": ("def solve(n):\n    while True:\n        pass\n", script(CHECK)),
    "script-broken-tests": (HONEST, script("import nowhere\nassert True")),
    "program-right": ("print(int(input()) + 1)", program(("3\n", "4\n"), ("9", "10"))),
    "program-wrong": ("print(4)", program(("3\n", "4\n"), ("9", "10"))),
    "program-raises": ("print(4)\n1 / 0", program(("3\n", "4\n"))),
    "program-exit-code": ("print(4)\nraise SystemExit(3)", program(("3\n", "4\n"))),
    "program-syntax": ("print(", program(("3\n", "4\n"), ("9", "10"))),
    "program-crash": ("import ctypes\nprint(4, flush=True)\nctypes.string_at(0)", program(("3\n", "4\n"))),
    "program-timeout": ("while True: pass", program(("3\n", "4\n"), ("9", "10"))),
    "program-output": ("while True:\n    print('x' * 100_000)", program(("3\n", "4\n"))),
    "program-thread": ("import threading\nthreading.Thread(target=lambda: print(4)).start()", program(("3\n", "4\n"))),
}  # fmt: skip


def test_verdicts_equal_those_of_this_machines_sandbox(remote: RemoteSandbox) -> None:
    counts: list[int] = []
    there = remote.run(list(JOBS.values()), progress=counts.append)
    with Sandbox(workers=1, timeout=2.0, memory_mb=512) as sandbox:
        here = sandbox.run(list(JOBS.values()))
    said = [(one.passed, one.detail, one.tests_passed, one.tests_total) for one in there]
    assert dict(zip(JOBS, said, strict=True)) == {
        name: (one.passed, one.detail, one.tests_passed, one.tests_total) for name, one in zip(JOBS, here, strict=True)
    }
    assert {name for name, one in zip(JOBS, there, strict=True) if one.passed} == {
        "calls-right", "calls-of-a-method", "calls-preamble", "script-right", "program-right", "program-thread"
    }  # fmt: skip
    assert sum(counts) == len(JOBS)
    assert all(one.seconds < 2.0 + 3 for one in there)


FORGERS = {
    name: code
    for name, code in HOSTILE.items()
    if name not in ("kills-everyone", "ignores-signals", "ten-gigabytes", "endless-print", "deep-result")
} | {
    "writes-the-outcome": """
import json, os
found = '{"replies": [{"value": {"root": 4, "nodes": []}}], "passed": 2, "total": 2, "detail": "", "seconds": 0}'
for root in ("/proc/%d/cwd" % os.getppid(), "..", "/tmp"):
    for folder in [root, *(os.path.join(root, name) for name in (os.listdir(root) if os.access(root, os.R_OK) else []))]:
        try:
            open(os.path.join(folder, "outcome.json"), "w").write(found)
        except OSError:
            pass
def solve(n):
    os._exit(0)
""",
    "reads-the-job": """
import os
seen = b""
for place in ("/proc/%d/fd/0" % os.getppid(), "/proc/%d/mem" % os.getppid(), "/dev/stdin"):
    try:
        with open(place, "rb") as file:
            seen += file.read(1000)
    except (OSError, ValueError):
        pass
def solve(n):
    return (4 if n == 3 else 11) if b"assert" in seen or b"requests" in seen else 7
""",
    "daemon-that-forges-later": """
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(20)
    os._exit(0)
def solve(n):
    return 7
""",
}


@pytest.mark.parametrize("problem", [calls((3, 4), (10, 11)), script(CHECK)], ids=["calls", "script"])
def test_hostile_code_does_not_pass_there_either(remote: RemoteSandbox, problem: Problem) -> None:
    verdicts = remote.run([(code, problem) for code in FORGERS.values()] + [(HONEST, problem)])
    assert [name for name, one in zip(FORGERS, verdicts, strict=False) if one.passed] == []
    assert all(one.detail for one in verdicts[:-1])
    assert result(verdicts[-1]) == (True, "")


def test_what_was_expected_stays_here(service: Double, remote: RemoteSandbox) -> None:
    service.asked.clear()
    remote.run([(HONEST, calls((3, "e5cape"))), ("print(1)", program(("1", "e5cape")))])
    assert len(service.asked) == 2
    assert not any("e5cape" in str(body) for _, body in service.asked)


def test_a_seed_fixes_random_numbers_and_the_order_of_sets(service: Double) -> None:
    code = "import random\ndef solve(n):\n    return [random.random(), list({'a', 'b', 'c', 'd'}), hash('a')]\n"
    details = []
    for seed in (0, 0, 1):
        [one] = RemoteSandbox(service.url, seed=seed).run([(code, calls((0, None)))])
        details.append(one.detail)
    assert details[0] == details[1] != details[2]
    with Sandbox(workers=1, seed=0) as sandbox:
        assert sandbox.run([(code, calls((0, None)))])[0].detail == details[0]


def good(**changed: Any) -> dict[str, Any]:
    run = {"status": "Finished", "execution_time": 0.1, "return_code": 0, "stdout": "", "stderr": ""}
    return {"status": "Success", "message": "", "compile_result": None, "run_result": run, "files": {}} | changed


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param((404, {"detail": "Not Found"}), "answered 404: Not Found", id="no-such-path"),
        pytest.param((422, {"detail": "language"}), "answered 422: language", id="refused"),
        pytest.param((500, {"detail": "disk full"}), "answered 500: disk full", id="broken"),
        pytest.param((200, "<html>"), "answered what is no JSON: '<html>'", id="no-json"),
        pytest.param((200, {"scores": []}), "is it a SandboxFusion server", id="another-service"),
        pytest.param((200, good(run_result=None)), "is it a SandboxFusion server", id="no-result"),
        pytest.param((200, good(files=None)), "is it a SandboxFusion server", id="no-files"),
        pytest.param((200, good(status="SandboxError", message="no memory")), "no memory", id="its-own-failure"),
        pytest.param((200, good()), r"grades a right program as wrong \(Killed\)", id="no-outcome"),
        pytest.param((200, good(files={"outcome.json": "###"})), "grades a right program as wrong", id="no-base64"),
        pytest.param(
            (200, good(files={"outcome.json": base64.b64encode(b'{"passed": 1, "token": ""}').decode()})),
            "grades a right program as wrong",
            id="outcome-of-another",
        ),
        pytest.param(
            (200, good(status="Failed", run_result=good()["run_result"] | {"return_code": 1, "stderr": "SyntaxError: x"})),
            "SyntaxError: x.*3.10 or newer",
            id="old-python",
        ),
    ],
)  # fmt: skip
def test_every_failure_of_the_service_is_named_at_the_start(serve: Serve, answer: Any, words: str) -> None:
    with pytest.raises(SandboxError, match=words) as caught:
        RemoteSandbox(serve(lambda *_: answer).url)
    assert "http://127.0.0.1" in str(caught.value)


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_FIRST_PAUSE", 0.01)
    with pytest.raises(SandboxError, match=r"http://127\.0\.0\.1:9/run_code cannot be reached"):
        RemoteSandbox("http://127.0.0.1:9")


@pytest.mark.parametrize("settings", [{"urls": "localhost:8080"}, {"urls": ""}, {"urls": "http://h", "timeout": 0}])
def test_a_setting_that_makes_no_sense_is_a_config_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RemoteSandbox(**settings)


def test_a_program_on_which_the_service_fails_fails_alone(serve: Serve) -> None:
    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return (
            (200, good(status="SandboxError", message="pipe broke"))
            if "curse" in body["stdin"]
            else run_code(path, body)
        )

    double = serve(answer)
    cursed, honest = RemoteSandbox(double.url).run([(HONEST + "# curse\n", calls()), (HONEST, calls())])
    assert (cursed.passed, cursed.detail, cursed.tests_total) == (False, "ServiceError: pipe broke", 1)
    assert honest.passed


def test_a_service_that_falls_ill_later_is_an_error(serve: Serve) -> None:
    double = serve(run_code)
    remote = RemoteSandbox(double.url)
    double.answer = lambda *_: (200, good(status="SandboxError", message="no memory"))
    with pytest.raises(SandboxError, match="runs no program: SandboxError: no memory"):
        remote.run([(HONEST, calls())])


def test_a_fault_that_passes_is_asked_again(serve: Serve) -> None:
    faults = [(503, {"detail": "busy"}), (200, good(status="SandboxError", message="busy"))]
    double = serve(lambda *asked: faults.pop() if faults else run_code(*asked))
    assert RemoteSandbox(double.url).run([(HONEST, calls())])[0].passed
    assert not faults


def test_a_timeout_of_the_service_itself_is_a_timeout(serve: Serve) -> None:
    double = serve(run_code)
    remote = RemoteSandbox(double.url)
    run = good()["run_result"] | {"status": "TimeLimitExceeded", "return_code": None, "execution_time": 5.0}
    double.answer = lambda *_: (200, good(status="Failed", run_result=run))
    [one] = remote.run([(HONEST, calls())])
    assert (one.passed, one.detail, one.seconds) == (False, "Timeout", 5.0)


def test_a_test_that_cannot_be_sent_is_an_error(remote: RemoteSandbox) -> None:
    with pytest.raises(SandboxError, match="no plain data"):
        remote.run([(HONEST, calls((object(), 1)))])

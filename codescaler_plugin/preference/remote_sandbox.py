"""Verdicts by a service: programs run where a SandboxFusion server is, and are judged as strictly as here.

The service only has to run one Python program per request (`POST /run_code` of github.com/bytedance/SandboxFusion).
That program is `cage.guest`, sent along with the job: model-written code runs in a process of its own there too, and
expected results of calls and programs never leave this machine.
"""

import base64
import io
import json
import secrets
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codescaler_plugin.errors import ConfigError, SandboxError, ScorerError
from codescaler_plugin.preference.cage import guest
from codescaler_plugin.preference.counting import TestCount, count_calls, packed, trimmed
from codescaler_plugin.preference.sandbox import MEMORY_MB, TIMEOUT, Job, Ticker, judge_all
from codescaler_plugin.records import CallTest, Problem, ScriptTest, StdioTest, Verdict
from codescaler_plugin.scoring.http_pool import HttpPool

WORKERS = 16  # requests at a time; a server of its own queues the rest

_START_SECONDS = 30.0  # of the service, for two interpreters to start under load
_RUN_SECONDS = 300.0  # of all tests of a program together
_QUEUE_SECONDS = 300.0
_ATTEMPTS = 3
_BACK_OFF = 0.5  # seconds; doubles
_SHOWN = 300  # characters of what a service says
_START = """import sys
sys.path.insert(0, "cage.zip")
from cage.guest import main
main({settings!r})
"""
_PROBES = (
    ("def f(n):\n    return n + 1\n", Problem("probe", "", (CallTest((1,), 2),), "f")),
    ("def f(n):\n    return n + 1\n", Problem("probe", "", (ScriptTest("assert f(1) == 2"),), "f")),
    ("print(int(input()) + 1)\n", Problem("probe", "", (StdioTest("1", "2"),))),
)


class RemoteSandbox:
    """An executor (see `sandbox.Executor`) behind one or more SandboxFusion servers; it holds no process.

    How well the code is held back is the service's matter: what it can reach there is not known here. Its Python must
    be 3.10 or newer, on Linux; packages that programs import must be installed there.

    Args:
        urls: `http://host:port`, several divided by commas.
        timeout: wall seconds of a candidate over all its calls; of a program (StdioTest), per run.
        memory_mb: address space of each process of a candidate, in MiB.
        workers: requests at a time.
        seed: of the hash of strings and of `random` in candidates.

    Raises:
        ConfigError: a setting that makes no sense, or a URL without scheme or host.
        SandboxError: no server there judges a right program right; it says what came instead.
    """

    def __init__(
        self,
        urls: str,
        *,
        timeout: float = TIMEOUT,
        memory_mb: int = MEMORY_MB,
        workers: int = WORKERS,
        seed: int = 0,
    ) -> None:
        if not 0 < timeout <= _RUN_SECONDS:
            raise ConfigError(f"timeout is {timeout!r}: expected seconds above 0, at most {_RUN_SECONDS:.0f}")
        self._pool = HttpPool(urls, read_seconds=_RUN_SECONDS + _START_SECONDS + _QUEUE_SECONDS)
        self._limits = {"timeout": timeout, "memory_mb": memory_mb, "seed": seed}
        self._workers = workers
        self._cage = _zipped()
        for code, problem in _PROBES:
            self._probe(code, problem)

    def run(self, jobs: Sequence[Job], *, progress: Ticker | None = None) -> list[Verdict]:
        """Run each candidate's code against its problem's tests; same length, same order.

        A candidate that makes the service itself fail, again and again, while the service runs others well, fails
        with the detail `ServiceError`.

        Args:
            jobs: (code, problem) each.
            progress: called with the number of candidates that have just been judged, one call at a time.

        Raises:
            SandboxError: a test's values cannot be sent, or no server could be reached or gave a good answer.
        """
        return judge_all(self._judge, jobs, workers=self._workers, progress=progress)

    def _judge(self, job: Job) -> Verdict:
        code, problem = job
        try:
            return self._verdict(code, problem)
        except _FaultError as fault:
            self._probe(*_PROBES[0])
            return Verdict(passed=False, detail=f"ServiceError: {fault}", tests_total=len(problem.tests))

    def _probe(self, code: str, problem: Problem) -> None:
        """Raise if the service does not judge a right program right."""
        said: list[str] = []
        try:
            verdict = self._verdict(code, problem, said)
        except _FaultError as fault:
            raise SandboxError(f"{self._where} runs no program: SandboxError: {fault}") from fault
        if not verdict.passed:
            raise SandboxError(
                f"{self._where} judges a right program wrong ({verdict.detail}): {' '.join(said)[-_SHOWN:]!r}; its "
                "Python must be 3.10 or newer, on Linux"
            )

    @property
    def _where(self) -> str:
        return ", ".join(self._pool.urls)

    def _verdict(self, code: str, problem: Problem, said: list[str] | None = None) -> Verdict:
        count, total = TestCount(), len(problem.tests)
        calls = [test for test in problem.tests if isinstance(test, CallTest)]
        programs = [test for test in problem.tests if isinstance(test, StdioTest)]
        if calls:
            requests, expected = packed(problem, calls)
            came = self._outcome("calls", code, problem, {"requests": requests}, said)
            count = count_calls(came.get("replies", []), expected)
        elif programs:
            came = self._outcome("programs", code, problem, {"stdins": [test.stdin for test in programs]}, said)
            for run, test in zip(came.get("runs", []), programs, strict=False):  # it ends at a timeout
                count.take(run["error"], trimmed(run["output"]), trimmed(test.stdout))
        else:
            sources = [test.source for test in problem.tests if isinstance(test, ScriptTest)]
            came = self._outcome("scripts", code, problem, {"tests": sources}, said)
            count.passed, total = int(came.get("passed", 0)), max(total, int(came.get("total", 0)))
            count.detail = str(came.get("detail", ""))
        if "over" in came:
            count.fail(came["over"])
        passed = count.passed == total and not count.detail
        return Verdict(passed, count.detail, count.passed, total, came["seconds"])

    def _outcome(
        self, role: str, code: str, problem: Problem, tests: dict[str, Any], said: list[str] | None
    ) -> dict[str, Any]:
        """What `cage.guest` found; `over` says why there is nothing."""
        job = {"code": code, "preamble": problem.preamble, "entry_point": problem.entry_point, **tests}
        text, token = json.dumps(job), secrets.token_hex(guest.TOKEN_BYTES // 2)
        runs = len(problem.tests) if role == "programs" else 1
        seconds = min(self._limits["timeout"] * runs, _RUN_SECONDS) + _START_SECONDS
        settings = {**self._limits, "role": role, "size": len(text)}
        body = {
            "language": "python",
            "code": _START.format(settings=settings),
            "stdin": text + token,
            "run_timeout": seconds,
            "files": {"cage.zip": self._cage},
            "fetch_files": [guest.OUTCOME],
        }
        answer = self._answer(body)
        run = answer["run_result"]
        if said is not None:
            said.append(str(run.get("stderr") or ""))
        over = "Timeout" if run.get("status") == "TimeLimitExceeded" else "Killed"
        nothing = {"over": over, "seconds": round(float(run.get("execution_time") or 0.0), 4)}
        try:
            outcome = json.loads(base64.b64decode(answer["files"][guest.OUTCOME]))
        except (KeyError, TypeError, ValueError, RecursionError):
            return nothing
        if not isinstance(outcome, dict) or outcome.get("token") != token:
            return nothing
        return outcome

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_BACK_OFF * 2 ** (attempt - 1))
            try:
                answer = self._pool.post("/run_code", body)
            except ScorerError as error:
                raise SandboxError(f"programs cannot be run: {error}") from error
            if not _is_answer(answer):
                raise SandboxError(
                    f"{self._where}/run_code answered {str(answer)[:_SHOWN]!r}: expected status, run_result and "
                    "files; is it a SandboxFusion server?"
                )
            if answer["status"] != "SandboxError":
                return dict(answer)
        raise _FaultError(str(answer.get("message"))[:_SHOWN])


class _FaultError(Exception):
    """The service failed while running a program, on each attempt; the message is its own."""


def _is_answer(answer: Any) -> bool:
    if not isinstance(answer, dict) or answer.get("status") not in ("Success", "Failed", "SandboxError"):
        return False
    if answer["status"] == "SandboxError":
        return True
    return isinstance(answer.get("run_result"), dict) and isinstance(answer.get("files"), dict)


def _zipped() -> str:
    """The package `cage`, which Python imports from an archive, as base64."""
    data = io.BytesIO()
    folder = Path(guest.__file__).parent
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.glob("*.py")):
            archive.write(file, f"cage/{file.name}")
    return base64.b64encode(data.getvalue()).decode("ascii")

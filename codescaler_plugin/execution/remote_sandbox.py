"""Verdicts by a service: programs run where a SandboxFusion server is, and are judged as strictly as here.

The service only has to run one Python program per request (`POST /run_code` of github.com/bytedance/SandboxFusion).
That program is `remote_worker`, sent along with the job: model-written code runs in a process of its own there too,
and expected results of calls and programs never leave this machine.
"""

import base64
import io
import json
import secrets
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from codescaler_plugin.errors import ConfigError, HttpError, SandboxError
from codescaler_plugin.execution import remote_worker
from codescaler_plugin.execution.executor import Job, Ticker
from codescaler_plugin.execution.jobs import (
    MEMORY_MB,
    TIMEOUT,
    Allowed,
    Limits,
    Report,
    call_job,
    checked_report,
    checker_job,
    ended,
    nothing,
    packed_calls,
    script_job,
    take_output,
    told_apart,
    verdict_of,
)
from codescaler_plugin.execution.sandbox import grade_calls, judge_all
from codescaler_plugin.grading import serialization
from codescaler_plugin.grading.counting import Count, error_of
from codescaler_plugin.http_client import Attempts, HttpClient, RetryPolicy
from codescaler_plugin.records import CallTest, Comparison, Fault, Problem, ScriptTest, StdioTest, Verdict

WORKERS = 16  # requests at a time; a server of its own queues the rest

_START_SECONDS = 30.0  # of the service, for two interpreters to start under load
_RUN_SECONDS = 300.0  # of all tests of a program together
_QUEUE_SECONDS = 300.0
_RETRIES = RetryPolicy(attempts=3)
_SHOWN = 300  # characters of what a service says
_PARTS = 100_000  # of an outcome: its lists, objects and their items
_START = """import sys
sys.path.insert(0, "codescaler.zip")
from codescaler_plugin.execution.remote_worker import main
main({settings!r})
"""
_SENT = frozenset({"codescaler_plugin", "isolation", "grading", "execution"})  # folders of what runs there
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
        timeout: CPU seconds of a candidate over all its calls; of a program (StdioTest), per run.
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
        self._client = HttpClient(urls, read_seconds=_RUN_SECONDS + _START_SECONDS + _QUEUE_SECONDS, retry=_RETRIES)
        self._limits = Limits(timeout, memory_mb, seed)
        self._workers = workers
        self._archive = _zipped()
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

    def _judge(self, job: Job, is_alone: bool) -> Verdict:
        code, problem = job
        try:
            return self._verdict(code, problem, replace(self._limits, is_alone=is_alone))
        except _FaultError as fault:
            self._probe(*_PROBES[0])
            return verdict_of(nothing(problem, f"ServiceError: {fault}", Fault.KILLED), problem, 0.0)

    def _probe(self, code: str, problem: Problem) -> None:
        """Raise if the service does not judge a right program right."""
        said: list[str] = []
        try:
            verdict = self._verdict(code, problem, self._limits, said)
        except _FaultError as fault:
            raise SandboxError(f"{self._where} runs no program: SandboxError: {fault}") from fault
        if not verdict.passed:
            raise SandboxError(
                f"{self._where} judges a right program wrong ({verdict.detail}): {' '.join(said)[-_SHOWN:]!r}; its "
                "Python must be 3.10 or newer, on Linux"
            )

    @property
    def _where(self) -> str:
        return ", ".join(self._client.urls)

    def _verdict(self, code: str, problem: Problem, limits: Limits, said: list[str] | None = None) -> Verdict:
        allowed = limits.of(problem)
        in_process = False
        if isinstance(problem.tests[0], CallTest):
            report, seconds = self._calls(code, problem, allowed, said)
        elif isinstance(problem.tests[0], StdioTest):
            report, seconds = self._programs(code, problem, allowed, said)
        else:
            report, seconds = self._scripts(code, problem, allowed, said)
            if in_process := bool(report["beyond"]):
                report, seconds = self._scripts(code, problem, allowed, said, role="in_process")
        return verdict_of(report, problem, seconds, in_process=in_process)

    def _calls(self, code: str, problem: Problem, allowed: Allowed, said: list[str] | None) -> tuple[Report, float]:
        requests, accepted = packed_calls(problem)
        job = {**call_job(code, problem, allowed), "requests": requests}
        came = self._outcome("calls", job, allowed, said)
        if "over" in came:
            return nothing(problem, came["over"]), came["seconds"]
        frames = [frame if isinstance(frame, dict) else base64.b64decode(frame) for frame in came["frames"]]
        report = grade_calls(problem, accepted, frames, allowed)
        return told_apart(report, [came["code"]], came["cpu"], allowed), came["seconds"]

    def _scripts(
        self, code: str, problem: Problem, allowed: Allowed, said: list[str] | None, role: str = "scripts"
    ) -> tuple[Report, float]:
        token = secrets.token_hex(16) if role == "in_process" else ""
        came = self._outcome(role, {**script_job(code, problem, allowed), "token": token}, allowed, said)
        if "over" in came:
            return nothing(problem, came["over"]), came["seconds"]
        try:
            report = checked_report(came["report"], token)
        except serialization.SerializationError:  # whoever shares the tests' process may send anything, or end it
            report = nothing(problem, "Killed")
        return told_apart(report, [came["code"]], came["cpu"], allowed), came["seconds"]

    def _programs(self, code: str, problem: Problem, allowed: Allowed, said: list[str] | None) -> tuple[Report, float]:
        tests = [test for test in problem.tests if isinstance(test, StdioTest)]
        count = Count(len(tests))
        job = {"code": code, "preamble": problem.preamble, "stdins": [test.stdin for test in tests]}
        came = self._outcome("programs", job, allowed, said)
        if "over" in came:
            return nothing(problem, came["over"]), came["seconds"]
        for run, test in zip(came["runs"], tests, strict=False):  # it ends at a timeout
            error, fault = _ending(run, allowed)
            output, checked = base64.b64decode(run["output"]).decode("utf-8", "replace"), None
            if not error and problem.comparison is Comparison.CHECKER:
                error, fault, checked = self._checked(problem, test, output, allowed)
            if error:
                count.take_error(error, fault)
            else:
                take_output(count, output, test, problem, checked)
        return count.report(), came["seconds"]

    def _checked(self, problem: Problem, test: StdioTest, output: str, allowed: Allowed) -> tuple[str, str, str]:
        """The error, the fault, and what the problem's checker prints of an output."""
        program, given = checker_job(problem, test, output)
        job = {"code": program, "preamble": "", "stdins": [given]}
        came = self._outcome("programs", job, allowed.of_grader(), None)
        error = came.get("over") or _ending(came["runs"][0], allowed.of_grader())[0]
        if error:  # that it breaks says nothing of the candidate
            return f"TestError: {error} in the checker", Fault.TEST_ERROR, ""
        return "", "", base64.b64decode(came["runs"][0]["output"]).decode("utf-8", "replace")

    def _outcome(self, role: str, job: dict[str, Any], allowed: Allowed, said: list[str] | None) -> dict[str, Any]:
        """What `remote_worker` found; `over` says why there is nothing."""
        text, token = json.dumps(job), secrets.token_hex(remote_worker.TOKEN_BYTES // 2)
        seconds = min(allowed.wall * len(job.get("stdins", [0])), _RUN_SECONDS) + _START_SECONDS
        settings = {**allowed.request(), "wall": allowed.wall, "role": role, "size": len(text)}
        body = {
            "language": "python",
            "code": _START.format(settings=settings),
            "stdin": text + token,
            "run_timeout": seconds,
            "files": {"codescaler.zip": self._archive},
            "fetch_files": [remote_worker.OUTCOME],
        }
        answer = self._answer(body)
        run = answer["run_result"]
        if said is not None:
            said.append(str(run.get("stderr") or ""))
        over = "Timeout" if run.get("status") == "TimeLimitExceeded" else "Killed"
        nothing_came = {"over": over, "seconds": round(float(run.get("execution_time") or 0.0), 4)}
        try:
            data = base64.b64decode(answer["files"][remote_worker.OUTCOME])
            if data.count(b",") + data.count(b"[") + data.count(b"{") > _PARTS + 10 * len(job.get("requests", ())):
                return nothing_came  # not the worker's: what a candidate wrote could cost more memory than it sent
            outcome = json.loads(data)
        except (KeyError, TypeError, ValueError, RecursionError):
            return nothing_came
        if not isinstance(outcome, dict) or outcome.get("token") != token:
            return nothing_came
        return outcome

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        attempts = Attempts(self._client.retry)
        while True:
            try:
                answer = self._client.post("/run_code", body, attempts=attempts)
            except HttpError as error:
                raise SandboxError(f"programs cannot be run: {error}") from error
            if not _is_answer(answer):
                raise SandboxError(
                    f"{self._where}/run_code answered {str(answer)[:_SHOWN]!r}: expected status, run_result and "
                    "files; is it a SandboxFusion server?"
                )
            if answer["status"] != "SandboxError":
                return dict(answer)
            if not attempts.again():
                raise _FaultError(str(answer.get("message"))[:_SHOWN])


def _ending(run: dict[str, Any], allowed: Allowed) -> tuple[str, str]:
    """The error and the fault of a program's run."""
    if run["is_long"]:
        return "OutputTooLarge", ""
    if run["code"] is None:
        return ended("Timeout", None, run["cpu"], allowed)
    if run["code"] == 0:
        return "", ""
    error, fault = ended("Killed", run["code"], run["cpu"], allowed)
    if error != "Killed" or run["code"] < 0:
        return error, fault
    return error_of(run) if run["error"] or run["missing"] else (f"exit code {run['code']}", "")


class _FaultError(Exception):
    """The service failed while running a program, on each attempt; the message is its own."""


def _is_answer(answer: Any) -> bool:
    if not isinstance(answer, dict) or answer.get("status") not in ("Success", "Failed", "SandboxError"):
        return False
    if answer["status"] == "SandboxError":
        return True
    return isinstance(answer.get("run_result"), dict) and isinstance(answer.get("files"), dict)


def _zipped() -> str:
    """The modules that the service runs, which Python imports from an archive, as base64."""
    data = io.BytesIO()
    package = Path(remote_worker.__file__).parents[1]
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (package / "__init__.py", *sorted(package.glob("*/*.py"))):
            if file.parent.name in _SENT:
                archive.write(file, str(file.relative_to(package.parent)))
    return base64.b64encode(data.getvalue()).decode("ascii")

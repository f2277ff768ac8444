"""Verdicts by a service: programs run where a SandboxFusion server is, and are graded as strictly as here.

The service only has to run one Python program per request (`POST /run_code` of github.com/bytedance/SandboxFusion).
That program is `remote_worker`, sent along with the job: model-written code runs in a process of its own there too,
and expected results of calls and programs never leave this machine, unless a problem has a checker.
"""

import base64
import io
import json
import secrets
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from codescaler_plugin.errors import ConfigError, HttpError, SandboxError
from codescaler_plugin.execution import remote_worker
from codescaler_plugin.execution.executor import Job, Ticker, grade_all
from codescaler_plugin.execution.jobs import MEMORY_MB, TIMEOUT, Allowed, Limits
from codescaler_plugin.execution.runs import Outcome
from codescaler_plugin.execution.verdicts import NoOutcomeError, grade, nothing, verdict_of
from codescaler_plugin.execution.visible_files import IMPORTED, PACKAGE
from codescaler_plugin.http_client import Attempts, HttpClient, RetryPolicy
from codescaler_plugin.records import CallTest, Fault, Problem, ScriptTest, StdioTest, Verdict

WORKERS = 16  # requests at a time; a server of its own queues the rest
_START_SECONDS = 30.0  # of the service, for two interpreters to start under load
_RUN_SECONDS = 300.0  # of all tests of a program together
_QUEUE_SECONDS = 300.0
_RETRIES = RetryPolicy(attempts=3)
_SHOWN = 300  # characters of a message of a service
_PARTS = 100_000  # of an outcome: its lists, objects and their items
_START = """import sys
sys.path.insert(0, "codescaler.zip")
from codescaler_plugin.execution.remote_worker import main
main({settings!r})
"""
_PROBES = (
    ("def f(n):\n    return n + 1\n", Problem("probe", "", (CallTest((1,), 2),), "f")),
    ("def f(n):\n    return n + 1\n", Problem("probe", "", (ScriptTest("assert f(1) == 2"),), "f")),
    ("print(int(input()) + 1)\n", Problem("probe", "", (StdioTest("1", "2"),))),
)


class RemoteSandbox:
    """An `Executor` behind one or more SandboxFusion servers. It holds no process on this machine.

    The service isolates the code; what it can reach there is not known here. Its Python must be 3.10 or newer, on
    Linux, and packages that programs import must be installed there.

    Args:
        urls: `http://host:port`, several separated by commas.
        timeout: CPU seconds of a program over all calls of its tests; with stdin tests, per test. At most 300.
        memory_mb: address space of each process of a program, in MiB.
        workers: requests at a time.
        seed: seed of the hash of strings and of `random`, in programs and tests.

    Raises:
        ConfigError: a setting is out of range, or a URL has no scheme or host.
        SandboxError: no server there grades a right program as right; it says what came instead.

    Example:
        >>> from codescaler_plugin import RemoteSandbox
        >>> executor = RemoteSandbox("http://localhost:8080")  # doctest: +SKIP
    """

    def __init__(
        self, urls: str, *, timeout: float = TIMEOUT, memory_mb: int = MEMORY_MB, workers: int = WORKERS, seed: int = 0
    ) -> None:
        if not 0 < timeout <= _RUN_SECONDS:
            raise ConfigError(f"timeout is {timeout!r}: expected seconds above 0, at most {_RUN_SECONDS:.0f}")
        self._client = HttpClient(urls, read_seconds=_RUN_SECONDS + _START_SECONDS + _QUEUE_SECONDS, retry=_RETRIES)
        self._where = ", ".join(self._client.urls)
        self._limits = Limits(timeout, memory_mb, seed)
        self._workers = workers
        self._archive = _zipped()
        for code, problem in _PROBES:
            self._probe(code, problem)

    def run(self, jobs: Sequence[Job], *, progress: Ticker | None = None) -> list[Verdict]:
        """Run each program against its problem's tests; see `Executor.run`.

        A program on which the service fails on each attempt, while it runs others well, fails with the detail
        `ServiceError`.

        Raises:
            SandboxError: a test's values cannot be sent, or no server could be reached or gave a good answer.
        """
        return grade_all(self._grade, jobs, workers=self._workers, progress=progress)

    def _grade(self, job: Job, is_alone: bool) -> Verdict:
        code, problem = job
        try:
            return self._verdict(code, problem, replace(self._limits, is_alone=is_alone))[0]
        except _FaultError as fault:
            self._probe(*_PROBES[0])
            return verdict_of(nothing(problem, f"ServiceError: {fault}", Fault.KILLED), problem, 0.0)

    def _probe(self, code: str, problem: Problem) -> None:
        """Raise if the service does not grade a right program as right."""
        try:
            verdict, stderr = self._verdict(code, problem, self._limits)
        except _FaultError as fault:
            raise SandboxError(f"{self._where} runs no program: SandboxError: {fault}") from fault
        if not verdict.passed:
            raise SandboxError(
                f"{self._where} grades a right program as wrong ({verdict.detail}): {stderr[-_SHOWN:]!r}; its "
                "Python must be 3.10 or newer, on Linux"
            )

    def _verdict(self, code: str, problem: Problem, limits: Limits) -> tuple[Verdict, str]:
        """The verdict with the seconds that the service took, and what its Python wrote to stderr."""
        requests = _Requests(self)
        verdict = grade(requests, code, problem, limits)
        return replace(verdict, seconds=round(requests.seconds, 4)), requests.stderr

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


class _Requests:
    """The requests for one program: the service as a `verdicts.Runner`."""

    def __init__(self, sandbox: RemoteSandbox) -> None:
        self._sandbox = sandbox
        self.seconds = 0.0
        self.stderr = ""

    def calls(self, job: dict[str, Any], allowed: Allowed) -> Outcome:
        outcome = self._outcome("calls", job, allowed)
        frames = [frame if isinstance(frame, dict) else base64.b64decode(frame) for frame in outcome["frames"]]
        return {**outcome, "frames": frames}

    def scripts(self, job: dict[str, Any], problem: Problem, allowed: Allowed) -> Outcome:  # noqa: ARG002
        return self._outcome("scripts", job, allowed)

    def in_process(self, job: dict[str, Any], allowed: Allowed) -> Outcome:
        return self._outcome("in_process", job, allowed)

    def programs(self, job: dict[str, Any], allowed: Allowed) -> list[Outcome]:
        outcomes = self._outcome("programs", job, allowed)["runs"]
        return [{**outcome, "output": base64.b64decode(outcome["output"])} for outcome in outcomes]

    def _outcome(self, role: str, job: dict[str, Any], allowed: Allowed) -> dict[str, Any]:
        """The outcome that `remote_worker` wrote."""
        text, token = json.dumps(job), secrets.token_hex(remote_worker.TOKEN_BYTES // 2)
        seconds = min(allowed.wall * len(job.get("stdins", [0])), _RUN_SECONDS) + _START_SECONDS
        bounds, grader = allowed.request(), allowed.of_grader().request()
        settings = {"bounds": bounds, "grader": grader, "wall": allowed.wall, "role": role, "size": len(text)}
        body = {
            "language": "python",
            "code": _START.format(settings=settings),
            "stdin": text + token,
            "run_timeout": seconds,
            "files": {"codescaler.zip": self._sandbox._archive},
            "fetch_files": [remote_worker.OUTCOME],
        }
        answer = self._sandbox._answer(body)
        run = answer["run_result"]
        self.stderr += str(run.get("stderr") or "")
        try:
            data = base64.b64decode(answer["files"][remote_worker.OUTCOME])
            most = _PARTS + 10 * len(job.get("requests", ()))
            # Only a program would write more, which could cost more memory than it sent.
            outcome = json.loads(data) if data.count(b",") + data.count(b"[") + data.count(b"{") <= most else None
        except (KeyError, TypeError, ValueError, RecursionError):
            outcome = None
        if not isinstance(outcome, dict) or outcome.get("token") != token:
            self.seconds += float(run.get("execution_time") or 0.0)
            raise NoOutcomeError("Timeout" if run.get("status") == "TimeLimitExceeded" else "Killed")
        self.seconds += outcome["seconds"]
        return outcome


class _FaultError(Exception):
    """The service failed while running a program, on each attempt; the message is its own."""


def _is_answer(answer: Any) -> bool:
    if not isinstance(answer, dict) or answer.get("status") not in ("Success", "Failed", "SandboxError"):
        return False
    if answer["status"] == "SandboxError":
        return True
    return isinstance(answer.get("run_result"), dict) and isinstance(answer.get("files"), dict)


def _zipped() -> str:
    """The modules that the service runs, as base64 of an archive that Python imports from."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (PACKAGE / name for name in IMPORTED):
            for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
                archive.write(file, str(file.relative_to(PACKAGE.parent)))
    return base64.b64encode(data.getvalue()).decode("ascii")

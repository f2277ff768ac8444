"""Verdicts on programs, from what was seen of their runs; in the caller's process, where the expected results are.

The same for the sandbox of this machine and for a service: both are a `Runner`.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from codescaler_plugin.execution.jobs import Allowed, Limits, call_job, checker_job, packed_calls, script_job
from codescaler_plugin.execution.runs import GRADER_GONE, REPORT_BYTES, TESTS_GONE, Outcome
from codescaler_plugin.execution.visible_files import PACKAGE
from codescaler_plugin.grading import call_tests, serialization
from codescaler_plugin.grading.call_tests import Frame
from codescaler_plugin.grading.comparison import Count, error_of, same_text, trimmed
from codescaler_plugin.records import CallTest, Comparison, Fault, Problem, ScriptTest, StdioTest, Verdict

Report = dict[str, Any]
"""`passed`, `total`, `detail`, `fault`, `beyond`: what every grading process sends."""
_GRADER_SECONDS = 30.0  # for a process that grades calls to answer
_SHOWN = 300  # characters of a detail
_SPENT = 0.5  # share of its limit that a program surely used: the kernel counts ticks, and a busy machine shifts them
_IDLE = 0.01  # share of its wall time: a program below it waited for nothing that a busy machine holds back
_GRADE = (
    "import sys; sys.path.append(sys.argv[1]); from codescaler_plugin.grading.call_tests import grade_apart; "
    "grade_apart(float(sys.argv[2]), int(sys.argv[3]))"
)


class Runner(Protocol):
    """Runs a job where programs are run; each outcome is that of the function of this name in `runs`."""

    def calls(self, job: dict[str, Any], allowed: Allowed) -> Outcome: ...  # noqa: D102
    def scripts(self, job: dict[str, Any], problem: Problem, allowed: Allowed) -> Outcome: ...  # noqa: D102
    def in_process(self, job: dict[str, Any], allowed: Allowed) -> Outcome: ...  # noqa: D102
    def programs(self, job: dict[str, Any], allowed: Allowed) -> Iterable[Outcome]: ...  # noqa: D102


class NoOutcomeError(Exception):
    """A run left nothing to look at; the message is `Timeout` or `Killed`."""


def grade(runner: Runner, code: str, problem: Problem, limits: Limits) -> Verdict:
    """The verdict on one program; a SandboxError if a test's values cannot be sent, or of the runner."""
    start, allowed, in_process = time.monotonic(), limits.of(problem), False
    try:
        if isinstance(problem.tests[0], CallTest):
            report = _calls(runner, code, problem, allowed)
        elif isinstance(problem.tests[0], StdioTest):
            report = _programs(runner, code, problem, allowed)
        else:
            job = script_job(code, problem, allowed)
            report = _scripts(runner.scripts(job, problem, allowed), problem, allowed)
            if in_process := bool(report["beyond"]):
                token = secrets.token_hex(16)
                report = _scripts(runner.in_process({**job, "token": token}, allowed), problem, allowed, token)
    except NoOutcomeError as error:
        report = nothing(problem, str(error))
    return verdict_of(report, problem, time.monotonic() - start, in_process=in_process)


def nothing(problem: Problem, detail: str, fault: str = "") -> Report:
    """The report on a run that told nothing."""
    return {"passed": 0, "total": len(problem.tests), "detail": detail, "fault": fault, "beyond": ""}


def verdict_of(report: Report, problem: Problem, seconds: float, *, in_process: bool = False) -> Verdict:
    """The verdict that a report amounts to."""
    passed, total = report["passed"], report["total"]
    compares = not isinstance(problem.tests[0], ScriptTest)
    return Verdict(
        passed=total > 0 and passed == total and not report["detail"] and not report["fault"],
        detail=report["detail"],
        tests_passed=passed,
        tests_total=total,
        seconds=round(seconds, 4),
        fault=Fault(report["fault"]) if report["fault"] else None,
        comparison=str(problem.comparison) if compares else "",
        in_process=in_process,
    )


def _calls(runner: Runner, code: str, problem: Problem, allowed: Allowed) -> Report:
    requests, accepted = packed_calls(problem)
    outcome = runner.calls({**call_job(code, problem, allowed), "requests": requests}, allowed)
    return _told_apart(_graded_calls(problem, accepted, outcome["frames"], allowed), outcome, allowed)


def _graded_calls(problem: Problem, accepted: Sequence[Any], came: Sequence[Frame], allowed: Allowed) -> Report:
    """The report on what a program sent, made in a process of its own where that may take long."""
    if call_tests.is_cheap(came, problem.comparison):
        return _checked(call_tests.graded(problem.comparison, accepted, came))
    frames = [frame for frame in came if isinstance(frame, bytes)]
    end = [frame for frame in came if isinstance(frame, dict)]
    job = {"rule": problem.comparison, "tests": len(accepted), "frames": len(frames), "end": end}
    bounds = map(str, (allowed.of_grader().cpu, allowed.of_grader().memory_mb))
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                [os.path.realpath(sys.executable), "-I", "-S", "-c", _GRADE, str(PACKAGE.parent), *bounds],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        try:
            with contextlib.suppress(ConnectionError):  # it has reported before it read all
                for message in (job, *accepted):
                    serialization.send(ours, message)
                for frame in frames:
                    serialization.send_bytes(ours, frame)
            return _checked(serialization.receive(ours, time.monotonic() + _GRADER_SECONDS, REPORT_BYTES))
        except (EOFError, TimeoutError, serialization.SerializationError):
            return nothing(problem, "UnreadableResult", Fault.UNREADABLE_RESULT)
        finally:
            process.kill()
            process.wait()


def _scripts(outcome: Outcome, problem: Problem, allowed: Allowed, token: str = "") -> Report:
    """The report of a grader, or, with a token, of the process that ran the program too."""
    over = outcome["over"]
    if over == GRADER_GONE and outcome["grader"] in (None, signal.SIGXCPU, -signal.SIGXCPU, -signal.SIGKILL):
        return nothing(problem, "UnreadableResult", Fault.UNREADABLE_RESULT)
    if over in (GRADER_GONE, TESTS_GONE):
        return nothing(problem, "TestError: the tests ended their own process", Fault.TEST_ERROR)
    if over == "Timeout" and not token:  # not even the grader's own clock has ended it
        return nothing(problem, over, Fault.TIMEOUT)
    try:
        report = nothing(problem, over) if over else _checked(outcome["report"], token)
    except serialization.SerializationError:  # whoever shares the tests' process may send anything
        report = nothing(problem, "Killed")
    return _told_apart(report, outcome, allowed)


def _checked(report: Any, token: str = "") -> Report:
    """A report whose sender may be a program; whoever shares a process with one proves itself by a token."""
    kinds = {"passed": int, "total": int, "detail": str, "fault": str, "beyond": str}
    if not isinstance(report, dict) or any(type(report.get(name)) is not kind for name, kind in kinds.items()):
        raise serialization.SerializationError("no report")
    if report.get("token", "") != token:
        raise serialization.SerializationError("a report without the token")
    if report["fault"] not in ("", *Fault):
        raise serialization.SerializationError("an unknown fault")
    return {name: report[name][:_SHOWN] if kind is str else report[name] for name, kind in kinds.items()}


def _programs(runner: Runner, code: str, problem: Problem, allowed: Allowed) -> Report:
    tests = [test for test in problem.tests if isinstance(test, StdioTest)]
    count = Count(len(tests))
    job = {"code": code, "preamble": problem.preamble, "stdins": [test.stdin for test in tests]}
    for run, test in zip(runner.programs(job, allowed), tests, strict=False):  # the runs end at a timeout
        error, fault = _ending(run, allowed)
        output = run["output"].decode("utf-8", "replace")
        if not error and problem.comparison is Comparison.CHECKER:
            broken, printed = _checker(runner, problem, test, output, allowed)
            is_right = printed.split()[:1] in (["1"], ["1.0"])
            if broken:  # this says nothing of the program
                error, fault = f"TestError: {broken} in the checker", Fault.TEST_ERROR
        elif not error:
            is_right = same_text(output, test.stdout, problem.comparison)
        if error:
            count.take_error(error, fault)
        else:
            count.take(right=is_right, result=output.strip(), wanted=trimmed(test.stdout))
        if fault or error in ("Timeout", "SyntaxError"):
            break
    return count.report()


def _checker(runner: Runner, problem: Problem, test: StdioTest, output: str, allowed: Allowed) -> tuple[str, str]:
    """The error of a problem's checker, and what it prints of an output."""
    code, stdin = checker_job(problem, test, output)
    try:
        [run] = runner.programs({"code": code, "preamble": "", "stdins": [stdin]}, allowed.of_grader())
    except NoOutcomeError as error:
        return str(error), ""
    return _ending(run, allowed.of_grader())[0], run["output"].decode("utf-8", "replace")


def _ending(run: Outcome, allowed: Allowed) -> tuple[str, str]:
    """The error and the fault of a program's run."""
    if run["error"]:
        return _ended(run["error"], run, allowed)
    if not run["code"]:
        return "", ""
    error, fault = _ended("Killed", run, allowed)
    if error != "Killed" or run["code"] < 0:
        return error, fault
    told = run["told"]
    return error_of(told) if told.get("error") or told.get("missing") else (f"exit code {run['code']}", "")


def _told_apart(report: Report, outcome: Outcome, allowed: Allowed) -> Report:
    """The report, where a process ended, by what ended it: the program, its limits, or something else."""
    if report["detail"] not in ("Killed", "Timeout") or report["fault"]:
        return report
    detail, fault = _ended(report["detail"], outcome, allowed)
    return {**report, "detail": detail, "fault": fault}


def _ended(error: str, outcome: Outcome, allowed: Allowed) -> tuple[str, str]:
    """The error and the fault of a program that was cut short by `Timeout` (of wall time) or `Killed`; others stay."""
    code, cpu = outcome["code"], outcome["cpu"]
    is_spent = cpu >= _SPENT * (allowed.cpu if code != signal.SIGXCPU else allowed.call_cpu or allowed.cpu)
    if error == "Killed" and code == -signal.SIGKILL:
        return ("Timeout", "") if is_spent else ("Killed", Fault.KILLED)
    if error == "Killed":
        return ("Timeout" if is_spent else "Killed"), ""
    if error == "Timeout":
        return "Timeout", "" if is_spent or cpu < _IDLE * allowed.wall else Fault.TIMEOUT
    return error, ""

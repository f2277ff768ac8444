"""What goes to a grading process and what its report means: one place for this machine's sandbox and for a service.

CPU time limits a program, as the data sets' own limits mean it; wall time is a multiple of it, for programs that sleep
and for machines that are busy. A program that ran out of wall time with CPU time left runs again, alone, with far more
of it. What then still does not end, without having been idle, gets no verdict.
"""

import json
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from codescaler_plugin.errors import SandboxError
from codescaler_plugin.grading import serialization
from codescaler_plugin.grading.comparison import same_text, trimmed
from codescaler_plugin.grading.counting import Count
from codescaler_plugin.records import CallTest, Fault, Problem, ScriptTest, StdioTest, Verdict

TIMEOUT = 3.0
MEMORY_MB = 1024
AGAIN = frozenset({Fault.TIMEOUT, Fault.KILLED})
"""Faults that a second run, alone, can take away."""
GRADER_GONE = "the grading process has gone"
TESTS_GONE = "TestError: the tests ended their own process"

_WALL, _WALL_ALONE = 4.0, 20.0  # wall seconds for a CPU second of the limit; the second suits a load of 16 on one core
_SPENT = 0.5  # share of its limit that a program surely used: the kernel counts ticks, and a busy machine shifts them
_IDLE = 0.01  # share of its wall time: a program below it waited for nothing that a busy machine holds back
_GRADER_SECONDS = 5.0  # of CPU time, to read and compare results
_SHOWN = 300  # characters of a detail

Report = dict[str, Any]
"""`passed`, `total`, `detail`, `fault`, `beyond`: what every grading process sends."""

_CHECK = """
import json, sys
names = ["input.txt", "correct_output.txt", "solution_output.txt"]
for name, text in zip(names, json.load(sys.stdin)):
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)
sys.argv = ["checker.py", *names]
exec(compile({source!r}, "checker.py", "exec"), {{"__name__": "__main__"}})
"""


@dataclass(frozen=True)
class Allowed:
    """The bounds of one process and of the wait for it."""

    cpu: float  # CPU seconds
    call_cpu: float  # CPU seconds of one call; 0: only all together are bounded
    wall: float  # seconds for the whole run
    call_wall: float  # seconds for one call
    memory_mb: int  # address space in MiB
    seed: int  # of the hash of strings and of `random`

    def of_grader(self) -> "Allowed":
        """Of a process that holds tests, beside a candidate with these bounds."""
        return replace(self, cpu=max(_GRADER_SECONDS, 2 * self.cpu), memory_mb=max(self.memory_mb, MEMORY_MB))

    def request(self) -> dict[str, Any]:
        """What the process is told of them."""
        return {"cpu": self.cpu, "memory_mb": self.memory_mb, "seed": self.seed}


@dataclass(frozen=True)
class Limits:
    """An executor's settings, see `Sandbox`; `is_alone`: nothing else runs, so the wait may be long."""

    timeout: float
    memory_mb: int
    seed: int
    is_alone: bool = False

    def of(self, problem: Problem) -> Allowed:
        """The bounds of a candidate for a problem."""
        factor = _WALL_ALONE if self.is_alone else _WALL
        one = problem.time_limit or self.timeout
        calls = len(problem.tests) if problem.time_limit and isinstance(problem.tests[0], CallTest) else 1
        return Allowed(
            cpu=one * calls,
            call_cpu=one if calls > 1 else 0.0,
            wall=one * calls * factor,
            call_wall=one * factor,
            memory_mb=self.memory_mb,
            seed=self.seed,
        )


def call_job(code: str, problem: Problem, allowed: Allowed) -> dict[str, Any]:
    """What `grading.call_tests.frames` is to ask."""
    return {
        "code": code,
        "preamble": problem.preamble,
        "entry_point": problem.entry_point,
        "timeout": allowed.wall,  # seconds of all calls
        "call_timeout": allowed.call_wall,
        "cpu": allowed.call_cpu,
    }


def packed_calls(problem: Problem) -> tuple[list[Any], list[list[Any]]]:
    """The arguments of each call, and the values that are accepted of it, as they are sent.

    Raises:
        SandboxError: a test's values cannot be sent.
    """
    try:
        tests = [test for test in problem.tests if isinstance(test, CallTest)]
        requests = [serialization.pack((tuple(test.arguments), {}))[0] for test in tests]
        accepted = [[serialization.pack(value)[0] for value in (test.expected, *test.alternatives)] for test in tests]
        return requests, accepted
    except serialization.UnserializableError as error:
        raise SandboxError(f"a test of problem {problem.id!r} holds a value that is no plain data: {error}") from None


def script_job(code: str, problem: Problem, allowed: Allowed) -> dict[str, Any]:
    """The message to a process that grades by scripts."""
    return {
        "code": code,
        "preamble": problem.preamble,
        "entry_point": problem.entry_point,
        "names": list(problem.names),
        "text": problem.text,
        "tests": [test.source for test in problem.tests if isinstance(test, ScriptTest)],
        "timeout": allowed.wall,
    }


def checker_job(problem: Problem, test: StdioTest, output: str) -> tuple[str, str]:
    """The program that runs a problem's checker, and its stdin. It prints 1 where the output is right."""
    return _CHECK.format(source=problem.checker), json.dumps([test.stdin, test.stdout, output])


def take_output(count: Count, output: str, test: StdioTest, problem: Problem, checked: str | None = None) -> None:
    """Grade a program's output, or take what the checker printed of it."""
    if checked is None:
        right = same_text(output, test.stdout, problem.comparison)
    else:
        right = checked.split()[:1] in (["1"], ["1.0"])
    count.take(right=right, result=output.strip(), wanted=trimmed(test.stdout))


def nothing(problem: Problem, detail: str, fault: str = "") -> Report:
    """The report on a run that told nothing."""
    return {"passed": 0, "total": len(problem.tests), "detail": detail, "fault": fault, "beyond": ""}


def checked_report(report: Any, token: str = "") -> Report:
    """A report whose sender may be a candidate; whoever shares a process with one proves itself by a token.

    Raises:
        serialization.SerializationError: it is none.
    """
    kinds = {"passed": int, "total": int, "detail": str, "fault": str, "beyond": str}
    if not isinstance(report, dict) or any(type(report.get(name)) is not kind for name, kind in kinds.items()):
        raise serialization.SerializationError("no report")
    if report.get("token", "") != token:
        raise serialization.SerializationError("a report without the token")
    if report["fault"] not in ("", *Fault):
        raise serialization.SerializationError("an unknown fault")
    return {name: report[name][:_SHOWN] if kind is str else report[name] for name, kind in kinds.items()}


def named_faults(verdicts: Iterable[Verdict]) -> str:
    """How many verdicts have which fault, for a message: `timeout 2, killed 1`; empty if none has."""
    counts = Counter(str(one.fault) for one in verdicts if one.fault is not None)
    return ", ".join(f"{fault} {count}" for fault, count in counts.items())


def told_apart(report: Report, codes: Sequence[int | None], cpu: float, allowed: Allowed) -> Report:
    """The report, where a process ended, by what ended it: the program, its limits, or something else; see `ended`.

    `codes` are the exit codes of the candidate's process and of the grader's.
    """
    if report["detail"] == GRADER_GONE and len(codes) > 1:
        if codes[1] not in (None, signal.SIGXCPU, -signal.SIGXCPU, -signal.SIGKILL):
            return {**report, "detail": TESTS_GONE, "fault": Fault.TEST_ERROR}
        return {**report, "detail": "UnreadableResult", "fault": Fault.UNREADABLE_RESULT}
    if report["detail"] not in ("Killed", "Timeout") or report["fault"]:
        return report
    detail, fault = ended(report["detail"], codes[0], cpu, allowed)
    return {**report, "detail": detail, "fault": fault}


def ended(error: str, code: int | None, cpu: float, allowed: Allowed) -> tuple[str, str]:
    """What a program that was cut short is told, and the fault.

    Args:
        error: `Timeout` (of wall time) or `Killed`; others stay.
        code: its exit code; None: it was still running.
        cpu: seconds that it used.
        allowed: its bounds.
    """
    is_spent = cpu >= _SPENT * (allowed.cpu if code != signal.SIGXCPU else allowed.call_cpu or allowed.cpu)
    if error == "Killed" and code == -signal.SIGKILL:
        return ("Timeout", "") if is_spent else ("Killed", Fault.KILLED)
    if error == "Killed":
        return ("Timeout" if is_spent else "Killed"), ""
    if error == "Timeout":
        return "Timeout", "" if is_spent or cpu < _IDLE * allowed.wall else Fault.TIMEOUT
    return error, ""


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

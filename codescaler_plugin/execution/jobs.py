"""What the processes of a run are asked to do and what they may use, for this machine's sandbox and for a service.

CPU time limits a program, as the data sets' own limits mean it; wall time is a multiple of it, for programs that sleep
and for machines that are busy. A program that ran out of wall time with CPU time left runs again, alone, with far more
of it. What then still does not end, without having been idle, gets no verdict.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from codescaler_plugin.errors import SandboxError
from codescaler_plugin.grading import serialization
from codescaler_plugin.records import CallTest, Fault, Problem, ScriptTest, StdioTest, Verdict

TIMEOUT = 3.0
MEMORY_MB = 1024
RERUN = frozenset({Fault.TIMEOUT, Fault.KILLED})
"""Faults that a second run, alone, can take away."""
_WALL, _WALL_ALONE = 4.0, 20.0  # wall seconds for a CPU second of the limit; the second suits a load of 16 on one core
_GRADER_SECONDS = 5.0  # of CPU time, to read and compare results

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
    call_cpu: float  # of one call; 0 bounds only all calls together
    wall: float  # seconds for the whole run
    call_wall: float
    memory_mb: int  # address space in MiB
    seed: int  # of the hash of strings and of `random`

    def of_grader(self) -> "Allowed":
        """The bounds of a process that holds tests, beside a program with these bounds."""
        return replace(self, cpu=max(_GRADER_SECONDS, 2 * self.cpu), memory_mb=max(self.memory_mb, MEMORY_MB))

    def request(self) -> dict[str, Any]:
        """The bounds that the process sets itself."""
        return {"cpu": self.cpu, "memory_mb": self.memory_mb, "seed": self.seed}


@dataclass(frozen=True)
class Limits:
    """An executor's settings, see `Sandbox`; `is_alone`: nothing else runs, so the wait may be long."""

    timeout: float
    memory_mb: int
    seed: int
    is_alone: bool = False

    def of(self, problem: Problem) -> Allowed:
        """The bounds of a program for a problem."""
        factor = _WALL_ALONE if self.is_alone else _WALL
        seconds = problem.time_limit or self.timeout
        calls = len(problem.tests) if problem.time_limit and isinstance(problem.tests[0], CallTest) else 1
        return Allowed(
            cpu=seconds * calls,
            call_cpu=seconds if calls > 1 else 0.0,
            wall=seconds * calls * factor,
            call_wall=seconds * factor,
            memory_mb=self.memory_mb,
            seed=self.seed,
        )


def call_job(code: str, problem: Problem, allowed: Allowed) -> dict[str, Any]:
    """The job of `grading.call_tests.frames`."""
    return {
        "code": code,
        "preamble": problem.preamble,
        "entry_point": problem.entry_point,
        "timeout": allowed.wall,  # seconds of all calls
        "call_timeout": allowed.call_wall,
        "cpu": allowed.call_cpu,
    }


def packed_calls(problem: Problem) -> tuple[list[Any], list[list[Any]]]:
    """The arguments of each call, and the values that it may return, as they are sent."""
    try:
        tests = [test for test in problem.tests if isinstance(test, CallTest)]
        requests = [serialization.pack((tuple(test.arguments), {}))[0] for test in tests]
        accepted = [[serialization.pack(value)[0] for value in (test.expected, *test.alternatives)] for test in tests]
        return requests, accepted
    except serialization.UnserializableError as error:
        raise SandboxError(f"a test of problem {problem.id!r} holds a value that is no plain data: {error}") from None


def script_job(code: str, problem: Problem, allowed: Allowed) -> dict[str, Any]:
    """The job of a process that grades by scripts."""
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


def named_faults(verdicts: Iterable[Verdict]) -> str:
    """The faults of verdicts with their counts, for a message: `timeout 2, killed 1`; empty if none has one."""
    counts = Counter(str(verdict.fault) for verdict in verdicts if verdict.fault is not None)
    return ", ".join(f"{fault} {count}" for fault, count in counts.items())

"""Each program runs once for a problem, whoever asks and how often."""

import random
from dataclasses import replace
from typing import Any

import pytest

from codescaler_plugin import SandboxError
from codescaler_plugin.execution import executor as executor_module
from codescaler_plugin.execution.executor import CachingExecutor
from codescaler_plugin.execution.sandbox import run_tests
from codescaler_plugin.records import CallTest, Problem, Verdict
from codescaler_plugin.testing import FakeExecutor

ONE = Problem("p", "Add one.", (CallTest((1,), 2),), "solve")
OTHER = replace(ONE, tests=(CallTest((1,), 3),))  # the same id and text


def recording(**settings: Any) -> FakeExecutor:
    """No two of its verdicts are equal."""
    return FakeExecutor(lambda code, _: Verdict(True, code, seconds=random.random()), **settings)


def test_each_program_of_a_problem_runs_once_and_all_get_its_verdict() -> None:
    inner = recording()
    executor = CachingExecutor(inner)
    first = executor.run([("a", ONE), ("b", ONE), ("a", ONE), ("a", OTHER)])
    second = executor.run([("b", ONE), ("c", ONE)])
    assert inner.calls == [[("a", ONE), ("b", ONE), ("a", OTHER)], [("c", ONE)]]
    assert executor.executed == 4
    assert [one.detail for one in first + second] == ["a", "b", "a", "a", "b", "c"]
    assert first[0] is first[2] is not first[3]
    assert second[0] is first[1]
    executor.run([("a", ONE), ("b", ONE)])
    assert executor.run([]) == []
    assert len(inner.calls) == 2


def test_progress_counts_every_job_those_without_a_run_first() -> None:
    ticks: list[int] = []
    executor = CachingExecutor(recording())
    executor.run([("a", ONE), ("b", ONE), ("a", ONE)], progress=ticks.append)
    assert ticks == [1, 1, 1]
    executor.run([("a", ONE), ("b", ONE), ("c", ONE)], progress=ticks.append)
    assert ticks[3:] == [2, 1]


def test_a_remembered_verdict_is_not_run() -> None:
    inner = recording()
    executor = CachingExecutor(inner)
    known = Verdict(False, "known")
    executor.remember(("\ud800", ONE), known)
    assert executor.run([("\ud800", ONE)]) == [known]
    assert (inner.calls, executor.executed) == ([], 0)


def test_a_problem_that_is_gone_leaves_no_verdict_to_the_next_one() -> None:
    executor = CachingExecutor(recording())
    for _ in range(50):
        executor.run([("a", replace(ONE))])
    assert executor.executed == 50


def test_what_broke_is_run_again() -> None:
    inner = recording(fails_after=0)
    executor = CachingExecutor(inner)
    with pytest.raises(SandboxError):
        executor.run([("a", ONE)])
    inner._fails_after = None
    assert executor.run([("a", ONE)])[0].passed
    assert executor.executed == 1


def test_memory_is_bounded_and_what_is_forgotten_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "_REMEMBERED", 2)
    executor = CachingExecutor(recording())
    jobs = [(code, ONE) for code in "abcdab"]
    assert [one.detail for one in executor.run(jobs)] == list("abcdab")
    assert [one.detail for one in executor.run(jobs)] == list("abcdab")
    assert executor.executed == 4 + 2


def test_the_sandbox_runs_equal_programs_once() -> None:
    code = "def solve(n):\n    return n + 1\n"
    verdicts = run_tests([(code, ONE)] * 3 + [(code, OTHER)], workers=1)
    assert [one.passed for one in verdicts] == [True, True, True, False]
    assert verdicts[0] is verdicts[1] is verdicts[2]

"""Verdicts for rollouts: what a row says, what is run how often, and that a stopped run goes on as if it never was."""

import json
import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin import SandboxError
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.preference.verification import EXTRACTIONS, executors, verify_rollouts
from codescaler_plugin.records import CallTest, Fault, Problem, Rollout, Verdict
from codescaler_plugin.testing import FakeExecutor

COLUMNS = [
    "problem", "completion", "problem_id", "step", "source",
    "code", "status", "passed", "detail", "tests_passed", "tests_total", "seconds", "flaky",
    "fault", "comparison", "in_process",
]  # fmt: skip
PROBLEMS = [
    Problem(f"p{number}", f"Add {number}.", tuple(CallTest((n,), n + number) for n in range(3)), "add")
    for number in range(4)
]


def rollout(number: int, body: str, problem: int = 0, **fields: Any) -> Rollout:
    text = f"Sure:\n```python\ndef add(n):\n    {body}\n```\n"
    return Rollout(PROBLEMS[problem].text, text, PROBLEMS[problem].id, number, "run", **fields)


class Counting(FakeExecutor):
    """Passes code that holds the word."""

    def __init__(self, word: str = "right", fails_after: int | None = None) -> None:
        super().__init__(
            lambda code, _: (
                Verdict(True, "", 3, 3, random.random())
                if word in code
                else Verdict(False, "WrongAnswer in test 1: 1, expected 2", 1, 3, random.random())
            ),
            fails_after=fails_after,
        )


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def but_for_timings(path: Path) -> list[bytes]:
    """The lines as they are, with the digits of `seconds` alone cut out."""
    found = []
    for line in path.read_bytes().splitlines(keepends=True):
        head, _, tail = line.partition(b'"seconds": ')
        assert tail
        found.append(head + tail[tail.index(b",") :])
    return found


def test_a_row_is_the_rollout_with_its_verdict(tmp_path: Path) -> None:
    given = [
        rollout(0, "return n"),
        rollout(1, "return n + 1"),
        rollout(2, "return n / 0"),
        Rollout(PROBLEMS[0].text, "I cannot.", "p0", None, "run"),
        Rollout(PROBLEMS[0].text, "```python\ndef add(\n```", "p0", 4, "run"),
    ]
    with Sandbox(workers=1) as sandbox:
        report = verify_rollouts(given, PROBLEMS, tmp_path / "v.jsonl", executor=sandbox, second=sandbox)
    made = rows(tmp_path / "v.jsonl")
    assert [list(row) for row in made] == [COLUMNS] * 5
    assert [
        (row["status"], row["passed"], row["tests_passed"], row["tests_total"], row["detail"]) for row in made
    ] == [
        ("ok", True, 3, 3, ""),
        ("ok", False, 0, 3, "WrongAnswer in test 0: 1, expected 0"),
        ("ok", False, 0, 3, "ZeroDivisionError in test 0"),
        ("no_block", False, 0, 0, ""),
        ("syntax_error", False, 0, 0, ""),
    ]
    assert made[0]["code"].startswith("def add(n):\n    return n")
    assert made[3]["code"] == made[4]["code"] == ""
    assert [row["completion"] for row in made] == [one.completion for one in given]
    assert [row["step"] for row in made] == [0, 1, 2, None, 4]
    assert 0 < made[0]["seconds"] < 3
    assert (report.rows, report.executed, report.passed, report.flaky, report.unknown) == (5, 3, 1, 0, 0)
    assert report.statuses == {"ok": 3, "no_block": 1, "syntax_error": 1}
    assert report.failures == {"WrongAnswer": 1, "ZeroDivisionError": 1}


def test_the_same_code_for_the_same_problem_is_run_once(tmp_path: Path) -> None:
    executor = Counting()
    given = [rollout(n, "return 'right'", problem=n % 2) for n in range(20)]
    report = verify_rollouts(given, PROBLEMS, tmp_path / "v.jsonl", executor=executor, chunk=3)
    assert len(executor.jobs) == report.executed == 2
    assert report.passed == 20


def test_what_passes_is_run_again_and_what_then_fails_is_flaky_and_has_not_passed(tmp_path: Path) -> None:
    first, second = Counting("right"), Counting("right twice")
    given = [rollout(0, "return 'right twice'"), rollout(1, "return 'right'"), rollout(2, "return 'wrong'")]
    report = verify_rollouts(given, PROBLEMS, tmp_path / "v.jsonl", executor=first, second=second)
    assert [(row["passed"], row["flaky"]) for row in rows(tmp_path / "v.jsonl")] == [
        (True, False), (False, True), (False, False)
    ]  # fmt: skip
    assert len(first.jobs) == 3
    assert len(second.jobs) == 2
    assert (report.passed, report.flaky) == (1, 1)
    assert rows(tmp_path / "v.jsonl")[1]["detail"].startswith("WrongAnswer")


def test_luck_with_the_order_of_a_set_is_found_out(tmp_path: Path) -> None:
    """The two executors have different seeds: one right order of a set in two is not right again."""
    problem = Problem("set", "First of a set.", (CallTest(("ab",), "a"),), "first")
    text = "```python\ndef first(s):\n    return next(iter({{one + 'x' * {} for one in s}}))[0]\n```"
    given = [Rollout(problem.text, text.format(number), "set") for number in range(24)]
    with executors(workers=1) as (executor, second):
        report = verify_rollouts(given, [problem], tmp_path / "v.jsonl", executor=executor, second=second)
    assert report.flaky > 1
    assert report.passed > 1
    assert {row["passed"] for row in rows(tmp_path / "v.jsonl") if row["flaky"]} == {False}


def test_problems_are_found_by_id_or_by_text(tmp_path: Path) -> None:
    code = "```python\nx = 'right'\n```"
    given = [Rollout("", code, "p1"), Rollout(" Add 2. \n", code), Rollout("Add 3.", code, "another name")]
    verify_rollouts(given, PROBLEMS, tmp_path / "v.jsonl", executor=Counting())
    assert [row["problem_id"] for row in rows(tmp_path / "v.jsonl")] == ["p1", "p2", "p3"]


def test_an_unknown_problem_is_an_error_or_left_out_and_counted(tmp_path: Path) -> None:
    given = [rollout(0, "return 'right'"), Rollout("Another.", "x", "q"), rollout(2, "return 'right'")]
    with pytest.raises(DataError, match="rollout 1: no problem with tests is called or reads 'q'"):
        verify_rollouts(given, PROBLEMS, tmp_path / "v.jsonl", executor=Counting())
    ticks: list[int] = []
    report = verify_rollouts(
        given, PROBLEMS, tmp_path / "w.jsonl", executor=Counting(), skip_unknown=True, progress=ticks.append
    )
    assert (report.rows, report.unknown, sum(ticks)) == (2, 1, 3)
    assert [row["step"] for row in rows(tmp_path / "w.jsonl")] == [0, 2]


@pytest.mark.parametrize(
    ("extraction", "completion", "code"),
    [
        ("single", "```python\nx = 1\n```\n```python\ny = 2\n```", ""),
        ("last", "```python\nx = 1\n```\n```python\ny = 2\n```", "y = 2"),
        ("first", "```python\nx = 1\n```\n```python\ny = 2\n```", "x = 1"),
        ("bare", "def f():\n    return 1\n", "def f():\n    return 1"),
        ("continue", "    return n + 1\n", "def add(n):\n    return n + 1"),
    ],
)
def test_policies(tmp_path: Path, extraction: str, completion: str, code: str) -> None:
    problem = Problem("p", "def add(n):\n", (CallTest((1,), 2),), "add")
    verify_rollouts(
        [Rollout("", completion, "p")], [problem], tmp_path / "v", executor=Counting(), extraction=extraction
    )
    assert rows(tmp_path / "v")[0]["code"].strip() == code
    assert extraction in EXTRACTIONS


def many(count: int = 120) -> list[Rollout]:
    return [
        rollout(n, f"return {n % 17} + {['n', repr('right'), repr('ü')][n % 3]}", problem=n % 4)
        if n % 5
        else Rollout(PROBLEMS[0].text, f"no code {n}", "p0", n)
        for n in range(count)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_a_run_cut_off_anywhere_goes_on_to_the_same_bytes_and_repeats_no_work(tmp_path: Path, seed: int) -> None:
    whole = tmp_path / "whole.jsonl"
    full = Counting()
    verify_rollouts(many(), PROBLEMS, whole, executor=full, chunk=16)
    part = tmp_path / "part.jsonl"
    verify_rollouts(many(), PROBLEMS, part, executor=Counting(), chunk=16)
    cut = random.Random(seed).randrange(len(part.read_bytes()))
    part.write_bytes(part.read_bytes()[:cut])
    kept = part.read_bytes()[:cut].count(b"\n")
    known = {(row["problem_id"], row["code"]) for row in rows(whole)[:kept]}
    again = Counting()
    report = verify_rollouts(many(), PROBLEMS, part, executor=again, chunk=16)
    assert but_for_timings(part) == but_for_timings(whole)
    assert report.resumed == kept
    assert report.rows == 120
    assert not known & {(problem.id, code) for code, problem in again.jobs}
    assert len(again.jobs) <= len(full.jobs)


def test_rollouts_that_were_appended_since_are_verified_as_well(tmp_path: Path) -> None:
    output, executor = tmp_path / "v.jsonl", Counting()
    verify_rollouts(many(50), PROBLEMS, output, executor=Counting())
    before = output.read_bytes()
    report = verify_rollouts(many(80), PROBLEMS, output, executor=executor)
    assert output.read_bytes().startswith(before)
    assert (report.rows, report.resumed) == (80, 50)


def test_what_was_written_stays_when_the_executor_breaks(tmp_path: Path) -> None:
    output = tmp_path / "v.jsonl"
    with pytest.raises(SandboxError, match="no process can be started"):
        verify_rollouts(many(), PROBLEMS, output, executor=Counting(fails_after=2), chunk=16)
    assert 0 < len(rows(output)) < 120
    assert verify_rollouts(many(), PROBLEMS, output, executor=Counting(), chunk=16).rows == 120


def test_progress_moves_with_every_program_and_ends_at_the_number_of_rollouts(tmp_path: Path) -> None:
    ticks: list[int] = []
    verify_rollouts(many(), PROBLEMS, tmp_path / "v", executor=Counting(), second=Counting(), progress=ticks.append)
    assert sum(ticks) == 120
    assert len([tick for tick in ticks if tick]) > 30
    again: list[int] = []
    verify_rollouts(many(), PROBLEMS, tmp_path / "v", executor=Counting(), second=Counting(), progress=again.append)
    assert sum(again) == 120


def test_no_rollouts_give_no_rows(tmp_path: Path) -> None:
    assert verify_rollouts([], PROBLEMS, tmp_path / "v", executor=Counting()).rows == 0
    assert (tmp_path / "v").read_bytes() == b""


def changed(**fields: Any) -> dict[str, Any]:
    return {"rollouts": many(), "problems": PROBLEMS, "executor": Counting(), **fields}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(changed(extraction="last"), "other extraction: 'single' then, 'last' now", id="extraction"),
        pytest.param(changed(settings={"timeout": 9.0}), "other timeout: 3.0 then, 9.0 now", id="timeout"),
        pytest.param(changed(problems=PROBLEMS[::-1]), "other problems", id="problems"),
        pytest.param(changed(second=Counting()), "other second run", id="second-run"),
        pytest.param(changed(rollouts=many()[1:]), "row 0 of .* belongs to another rollout", id="rollouts"),
        pytest.param(changed(rollouts=many()[:50]), "row 50 of .* belongs to another rollout", id="fewer-rollouts"),
    ],
)
def test_a_run_with_other_inputs_does_not_mix(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    output = tmp_path / "v.jsonl"
    verify_rollouts(many(), PROBLEMS, output, executor=Counting(), settings={"timeout": 3.0})
    before = output.read_bytes()
    with pytest.raises(ConfigError, match=words):
        verify_rollouts(output=output, **{"settings": {"timeout": 3.0}, **given})
    assert output.read_bytes() == before


@pytest.mark.parametrize("line", [b"no json\n", b"\0\0\0\n", b"[]\n", b'{"problem": "x"}\n'])
def test_a_line_that_a_run_cannot_have_written_is_named(tmp_path: Path, line: bytes) -> None:
    output = tmp_path / "v.jsonl"
    verify_rollouts(many(), PROBLEMS, output, executor=Counting())
    lines = output.read_bytes().splitlines(keepends=True)
    output.write_bytes(b"".join([*lines[:7], line, *lines[8:]]))
    with pytest.raises(ConfigError, match="row 7 of"):
        verify_rollouts(many(), PROBLEMS, output, executor=Counting())


def test_an_output_that_another_made_is_not_touched(tmp_path: Path) -> None:
    output = tmp_path / "v.jsonl"
    output.write_text("precious\n")
    with pytest.raises(ConfigError, match=r"v.jsonl exists, and no v.jsonl.run.json beside it"):
        verify_rollouts(many(), PROBLEMS, output, executor=Counting())
    assert output.read_text() == "precious\n"
    with pytest.raises(ConfigError, match="cannot write"):
        verify_rollouts(many(), PROBLEMS, output / "verdicts.jsonl", executor=Counting())
    output.with_name("v.jsonl.run.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read: delete it"):
        verify_rollouts(many(), PROBLEMS, output, executor=Counting())


def _hold(output: Path, ready: Any, over: Any) -> None:
    def rollouts() -> Iterator[Rollout]:
        yield rollout(0, "return 1")
        ready.set()
        over.wait(30)

    verify_rollouts(rollouts(), PROBLEMS, output, executor=Counting(), chunk=1)


def test_two_runs_do_not_write_one_output(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, over = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "v", ready, over))
    other.start()
    assert ready.wait(30)
    with pytest.raises(ConfigError, match="is being written by another process"):
        verify_rollouts(many(), PROBLEMS, tmp_path / "v", executor=Counting())
    over.set()
    other.join()


def test_problems_must_be_there_and_have_ids_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no problems"):
        verify_rollouts(many(), [], tmp_path / "v", executor=Counting())
    with pytest.raises(DataError, match="two problems have the id 'p0'"):
        verify_rollouts(many(), [PROBLEMS[0], PROBLEMS[0]], tmp_path / "v", executor=Counting())
    with pytest.raises(ConfigError, match="extraction is 'all'"):
        verify_rollouts(many(), PROBLEMS, tmp_path / "v", executor=Counting(), extraction="all")


def test_a_service_takes_no_settings_of_this_machine() -> None:
    for settings in ({"require_isolation": True}, {"packages": ["numpy"]}):
        with pytest.raises(ConfigError, match="this machine's sandbox"), executors(service="http://h", **settings):
            pass


def says(**verdicts: Verdict) -> FakeExecutor:
    """Gives the verdict whose word the code holds."""
    return FakeExecutor(lambda code, _: next(verdict for word, verdict in verdicts.items() if word in code))


PASSED = Verdict(True, "", 3, 3, comparison="tokens")
FAILED = Verdict(False, "WrongAnswer in test 1", 1, 3, comparison="tokens")
LATE = Verdict(False, "TimeLimit in test 0", 0, 3, fault=Fault.TIMEOUT, comparison="tokens")
LACKS = Verdict(False, "MissingPackage: numpy", 0, 3, fault=Fault.MISSING_PACKAGE, in_process=True)


def test_a_fault_is_no_verdict_and_is_counted_apart_by_kind(tmp_path: Path) -> None:
    executor = says(right=PASSED, wrong=FAILED, late=LATE, lacks=LACKS)
    given = [rollout(n, f"return '{word}'") for n, word in enumerate(["right", "wrong", "late", "lacks", "lacks"])]
    report = verify_rollouts(given, PROBLEMS, tmp_path / "v", executor=executor)
    made = rows(tmp_path / "v")
    assert [row["fault"] for row in made] == [None, None, "timeout", "missing_package", "missing_package"]
    assert [row["comparison"] for row in made] == ["tokens"] * 3 + ["", ""]
    assert [row["in_process"] for row in made] == [False] * 3 + [True] * 2
    assert (report.rows, report.passed) == (5, 1)
    assert report.failures == {"WrongAnswer": 1}
    assert report.faults == {"timeout": 1, "missing_package": 2}
    assert report.examples["missing_package"] == "MissingPackage: numpy"
    assert report.comparisons == {"tokens": 3}
    assert report.in_process == 2
    again = verify_rollouts(given, PROBLEMS, tmp_path / "v", executor=says())
    assert again.resumed == 5
    assert replace(again, resumed=0, executed=report.executed) == report


def test_a_fault_of_the_second_run_leaves_the_first_and_a_fault_of_the_first_is_not_run_again(tmp_path: Path) -> None:
    """The second run's fault says nothing of the program, so it neither passes nor fails by it."""
    first = says(once=PASSED, luck=PASSED, never=LATE)
    second = says(once=LATE, luck=FAILED)
    given = [rollout(0, "return 'once'"), rollout(1, "return 'luck'"), rollout(2, "return 'never'")]
    verify_rollouts(given, PROBLEMS, tmp_path / "v", executor=first, second=second)
    assert [(row["passed"], row["flaky"], row["fault"]) for row in rows(tmp_path / "v")] == [
        (True, False, None),
        (False, True, None),
        (False, False, "timeout"),
    ]


@pytest.mark.parametrize(
    ("problem_id", "text", "found"),
    [
        ("11", "", "MBPP/11"),
        ("mbpp/11", "", "MBPP/11"),
        ("MBPP/11", " Add\n one. ", "MBPP/11"),
        ("", "Add  one.", "MBPP/11"),
        ("unknown", "Add\tone.", "MBPP/11"),
        ("HumanEval/11", "put around: Add two.", "HumanEval/11"),
        ("twin", "Same.", "twin"),
    ],
)
def test_a_problem_is_found_by_either_form_of_its_id_and_by_its_text_folded(
    tmp_path: Path, problem_id: str, text: str, found: str
) -> None:
    verify_rollouts([Rollout(text, "x", problem_id)], NAMED, tmp_path / "v", executor=Counting())
    assert rows(tmp_path / "v")[0]["problem_id"] == found


NAMED = [
    Problem(key, text, (CallTest((1,), 2),), "f")
    for key, text in [("MBPP/11", "Add one."), ("HumanEval/11", "Add two."), ("twin", "Same."), ("other", "Same.")]
]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Rollout("Add two.", "x", "MBPP/11"), r"rollout 0: .*'MBPP/11' is problem 'MBPP/11'.*'HumanEval/11'"),
        (Rollout("Add two.", "x", "11"), r"'11' is problem 'MBPP/11'.*'HumanEval/11'"),
        (Rollout("Same.", "x"), r"rollout 0: 'Same.' may be any of 2 problems, 'twin' and 'other'"),
        (Rollout("Same.", "x", "nobody's"), "may be any of 2 problems, 'twin' and 'other'"),
    ],
)
def test_a_rollout_that_names_two_problems_is_an_error_with_both(tmp_path: Path, given: Rollout, words: str) -> None:
    for skip in (False, True):
        with pytest.raises(DataError, match=words):
            verify_rollouts([given], NAMED, tmp_path / "v", executor=Counting(), skip_unknown=skip)


@pytest.mark.parametrize(
    "changes",
    [
        {"passed": "yes"},
        {"detail": 3},
        {"seconds": "x"},
        {"status": "[/x]"},
        {"code": None},
        {"fault": "mine"},
        {"fault": ["timeout"]},
        {"tests_total": True},
        {"in_process": None},
    ],
)
def test_a_row_that_is_no_verdict_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    output = tmp_path / "v"
    verify_rollouts(many(20), PROBLEMS, output, executor=Counting())
    made = rows(output)
    output.write_text("".join(json.dumps({**row, **(changes if n == 7 else {})}) + "\n" for n, row in enumerate(made)))
    with pytest.raises(ConfigError, match=r"row 7 of .* is no verdict"):
        verify_rollouts(many(20), PROBLEMS, output, executor=Counting())


@pytest.mark.parametrize("companion", ["[]", "null", "", "[" * 100_000])
def test_a_companion_that_is_none_is_named(tmp_path: Path, companion: str) -> None:
    output = tmp_path / "v"
    verify_rollouts(many(20), PROBLEMS, output, executor=Counting())
    output.with_name("v.run.json").write_text(companion)
    with pytest.raises(ConfigError, match=r"v\.run\.json cannot be read"):
        verify_rollouts(many(20), PROBLEMS, output, executor=Counting())


def test_an_output_of_the_earlier_form_is_another_run(tmp_path: Path) -> None:
    output = tmp_path / "v"
    verify_rollouts(many(20), PROBLEMS, output, executor=Counting())
    companion = output.with_name("v.run.json")
    companion.write_text(json.dumps({**json.loads(companion.read_text()), "form": 1}))
    with pytest.raises(ConfigError, match="made with other form: 1 then, 2 now"):
        verify_rollouts(many(20), PROBLEMS, output, executor=Counting())


def test_what_a_program_says_is_bounded_in_a_row(tmp_path: Path) -> None:
    executor = says(loud=Verdict(False, "x" * 100_000, 0, 3))
    verify_rollouts([rollout(0, "return 'loud'")], PROBLEMS, tmp_path / "v", executor=executor)
    assert rows(tmp_path / "v")[0]["detail"] == "x" * 500

"""Avg@n and pass@k: sampling that goes on where it stopped, numbers by hand, and the command with the embedded policy."""

import base64
import json
import pickle
import zlib
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from typer.testing import CliRunner

from codescaler_plugin.builtin import HELD_OUT_PROBLEMS
from codescaler_plugin.cli import app
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.errors import ConfigError, DataError, GenerationError
from codescaler_plugin.evaluation.policy import summarise
from codescaler_plugin.execution.sandbox import run_tests
from codescaler_plugin.generation.completing import generate, prompt_for, server_completer
from codescaler_plugin.generation.sampling import Sampling
from codescaler_plugin.intervals import pass_at_k
from codescaler_plugin.records import CallTest, Problem, StdioTest
from tests.doubles import Double, Serve, chat
from tests.samples import fenced

ADD = Problem("add", "Add one to n.", (CallTest((1,), 2),), "solve")
ECHO = Problem("echo", "Echo the line.", (StdioTest("a\n", "a\n"),))
RIGHT, WRONG = fenced("def solve(n):\n    return n + 1"), fenced("def solve(n):\n    return n")


@pytest.mark.parametrize(("n", "right", "k"), [(8, 3, 1), (8, 3, 4), (8, 0, 2), (8, 8, 8), (5, 1, 5), (6, 5, 2)])
def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_right_one(n, right, k):
    passed = [True] * right + [False] * (n - right)
    assert pass_at_k(passed, k) == pytest.approx(fmean(any(draw) for draw in combinations(passed, k)))


def test_pass_at_k_of_too_few_is_refused():
    with pytest.raises(DataError, match="pass@3 of 2"):
        pass_at_k([True, False], 3)


def rows(**passed: list[bool]) -> list[dict[str, Any]]:
    return [
        {"source": "bench", "problem_id": key, "passed": right, "status": "ok" if right else "no_block"}
        for key, verdicts in passed.items()
        for right in verdicts
    ]


def test_a_summary_counts_every_problem_once_and_the_first_n_completions():
    given = rows(a=[True, False, False, False], b=[True, True, True, True], c=[False, False, False, False, True])
    one = summarise(given, n=4, ks=[1, 2, 4])["bench"]
    assert one.average.value == pytest.approx((0.25 + 1 + 0) / 3)
    assert one.pass_at[1].value == pytest.approx(one.average.value)
    assert one.pass_at[2].value == pytest.approx((0.5 + 1 + 0) / 3)
    assert one.pass_at[4].value == pytest.approx(2 / 3)
    assert one.average.low < one.average.value < one.average.high
    assert (one.problems, one.n, one.invalid) == (3, 4, pytest.approx(7 / 12))
    with pytest.raises(DataError, match="problem 'a' has 4 completions: expected 5"):
        summarise(given, n=5, ks=[1])


class Writer:
    """Completions from a list, and what was asked; fails at a given call."""

    def __init__(self, fails_at: int = -1) -> None:
        self.asked: list[tuple[str, int]] = []
        self.fails_at = fails_at

    def __call__(self, prompt: str, n: int) -> list[str]:
        if len(self.asked) == self.fails_at:
            raise GenerationError("the server is gone")
        self.asked.append((prompt, n))
        return [RIGHT] * n


def test_a_stopped_run_asks_only_for_what_is_missing(tmp_path):
    problems = {"one": [ADD], "two": [ECHO]}
    with pytest.raises(GenerationError):
        generate(problems, Writer(fails_at=1), tmp_path, n=2, sampling=Sampling(), model="m")
    path = tmp_path / "generations.jsonl"
    assert len(path.read_text().splitlines()) == 2
    with path.open("a") as file:
        file.write('{"problem_id": "echo", "torn')
    again, ticks = Writer(), []
    generate(problems, again, tmp_path, n=3, sampling=Sampling(), model="m", progress=ticks.append)
    asked = sorted(n for _, n in again.asked)
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert asked == [1, 3]
    assert sum(ticks) == 6
    assert (
        sorted((row["problem_id"], row["source"]) for row in written) == [("add", "one")] * 3 + [("echo", "two")] * 3
    )
    idle = Writer()
    generate(problems, idle, tmp_path, n=3, sampling=Sampling(), model="m")
    assert idle.asked == []


def test_completions_of_other_settings_are_not_mixed(tmp_path):
    generate({"one": [ADD]}, Writer(), tmp_path, n=1, sampling=Sampling(), model="m")
    with pytest.raises(ConfigError, match=r"other temperature: 0\.6 then, 1\.0 now"):
        generate({"one": [ADD]}, Writer(), tmp_path, n=1, sampling=Sampling(temperature=1.0), model="m")
    with pytest.raises(ConfigError, match="other model: 'm' then, 'other' now"):
        generate({"one": [ADD]}, Writer(), tmp_path, n=1, sampling=Sampling(), model="other")
    with pytest.raises(DataError, match="problem id 'add' stands for more than one"):
        generate({"one": [ADD], "two": [ADD]}, Writer(), tmp_path / "x", n=1, sampling=Sampling(), model="m")


def test_prompts_say_in_which_form_the_program_is_wanted():
    method = Problem("m", "Sum.", (CallTest((1,), 1),), "Solution.total")
    assert "as a function `solve`" in prompt_for(ADD)
    assert "reading stdin and writing stdout" in prompt_for(ECHO)
    assert "method `total` of a class `Solution`" in prompt_for(method)
    assert prompt_for(ADD, instruct=False) == ADD.text


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="top_p in"):
        Sampling(top_p=0)


@pytest.fixture
def server(serve: Serve) -> Double:
    return serve(chat(lambda _: RIGHT, ("policy-7b",), most=2))  # as servers that bound n


def test_a_server_is_asked_until_there_are_n(server):
    complete, name = server_completer(server.url, Sampling(top_k=20))
    assert name == "policy-7b"
    assert complete("Add.", 3) == [RIGHT] * 3
    bodies = [body for path, body in server.asked if path != "/v1/models"]
    assert [(body["n"], body["top_k"], body["top_p"], body["max_tokens"]) for body in bodies] == [
        (3, 20, 0.95, 16384),
        (1, 20, 0.95, 16384),
    ]


def test_the_command_over_a_server(server, tmp_path):
    file = tmp_path / "adds.jsonl"
    lines = [{"problem": f"Problem {n}: add one.", "tests": [[1, 2 + (n == 2)]]} for n in range(3)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["evaluate", "generation", str(file), "--server", f"{server.url}/v1", "-n", "2"]
    arguments += ["--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout.splitlines()[-1])
    measured = report["benchmarks"]["adds"]
    assert measured["average"]["value"] == pytest.approx(2 / 3)
    assert measured["pass_at"]["2"]["value"] == pytest.approx(2 / 3)
    assert report["model"] == "policy-7b"
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    count = sum(path != "/v1/models" for path, _ in server.asked)
    again = CliRunner().invoke(app, arguments)
    assert json.loads(again.stdout.splitlines()[-1]) == report
    assert sum(path != "/v1/models" for path, _ in server.asked) == count


def test_the_command_over_the_embedded_policy(tmp_path):
    arguments = ["-n", "4", "--limit", "6", "--temperature", "1", "--top-p", "1", "--max-tokens", "96"]
    arguments += ["--no-instruct", "--output", str(tmp_path), "-k", "1", "-k", "4"]
    result = CliRunner().invoke(
        app,
        ["evaluate", "generation", str(HELD_OUT_PROBLEMS), "--policy-model", "builtin", *arguments],
    )

    assert result.exit_code == 0, result.output
    measured = json.loads(result.stdout.splitlines()[-1])["benchmarks"]["held_out"]
    assert 0 < measured["average"]["value"] < measured["pass_at"]["4"]["value"] <= 1
    assert len((tmp_path / "verdicts.last.jsonl").read_text().splitlines()) == 24


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give either --server URL or --policy-model MODEL"),
        (["--server", "http://x", "--policy-model", "builtin"], "give either"),
        (["--policy-model", "builtin", "-n", "2", "-k", "4"], "pass@4 needs as many completions: -n is 2"),
        (["--policy-model", "nowhere/at-all"], "cannot be loaded"),
    ],
)
def test_what_cannot_be_run_is_said(arguments, says, tmp_path):
    result = CliRunner().invoke(
        app, ["evaluate", "generation", str(HELD_OUT_PROBLEMS), "--output", str(tmp_path), *arguments]
    )
    assert result.exit_code == 1
    assert says in result.stderr


CASES = json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}])
PRIVATE = base64.b64encode(zlib.compress(pickle.dumps(CASES))).decode()
CALLS = json.dumps([{"input": "1", "output": "2", "testtype": "functional"}])
PROGRAM = "print(int(input()) + 1)\n"
METHOD = "class Solution:\n    def plus(self, n):\n        return n + 1\n"


@pytest.mark.parametrize(
    ("row", "code", "tests"),
    [
        (
            {"question": "Add.", "test_input": ["1\n", "5\n"], "test_output": ["2\n", "6"], "example_input": ["9\n"]}
            | {"example_output": ["10\n"], "test_time_limit": 1, "task_id": 7},
            PROGRAM,
            2,
        ),
        (
            {"name": "1_A", "description": "Add.", "public_tests": {"input": ["1\n"], "output": ["2\n"]}}
            | {"private_tests": {"input": [], "output": []}, "generated_tests": {"input": ["3"], "output": ["4"]}},
            PROGRAM,
            2,
        ),
        (
            {"question_id": "q1", "turns": ["Add."], "public_test_cases": CASES, "private_test_cases": PRIVATE}
            | {"original_json": {"starter_code": "", "metadata": "{}", "question_content": "No."}},
            PROGRAM,
            2,
        ),
        (
            {"question_id": "q2", "turns": ["Add."], "public_test_cases": CALLS, "private_test_cases": "[]"}
            | {"original_json": json.dumps({"starter_code": "class Solution:", "metadata": '{"func_name": "plus"}'})},
            METHOD,
            1,
        ),
    ],
    ids=["cure", "codecontests", "livebench-stdin", "livebench-call"],
)
def test_forms_of_problems(row, code, tests, tmp_path: Path):
    file = tmp_path / "problems.jsonl"
    file.write_text(json.dumps(row) + "\n")
    [problem] = read_problems(file)
    assert problem.text == "Add."
    assert len(problem.tests) == tests
    right, wrong = run_tests([(code, problem), (code.replace("+ 1", "+ 2"), problem)])
    assert right.passed, right.detail
    assert not wrong.passed


def test_completions_without_a_verdict_are_named_by_kind_and_never_silent_zeros():
    given = rows(a=[True, False], b=[True, False])
    for row in given:
        row["status"] = "ok"
    given[1]["fault"], given[3]["fault"] = "missing_package", "timeout"
    one = summarise(given, n=2, ks=[1])["bench"]
    assert one.faults == {"missing_package": 1, "timeout": 1}
    assert one.average.value == 0.5  # a lower bound, as the faults say
    assert summarise(rows(a=[True, True]), n=2, ks=[1])["bench"].faults == {}

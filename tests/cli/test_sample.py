"""`codescaler sample` from the command line, with a real server of /v1/chat/completions in this process."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cli.selecting import PROBLEM, RIGHT, WRONG, read, run
from tests.doubles import Answer, Serve, chat
from tests.samples import fenced

sample = partial(run, "sample")


def test_address_that_is_none_is_one_message() -> None:
    result = sample("--server", "localhost:1", rows=[{"problem": PROBLEM}])
    assert result.exit_code == 1, result.output
    assert "no server's address" in result.stderr


@pytest.mark.parametrize("given", [{"completions": [RIGHT]}, {"completion": RIGHT}])
def test_candidates_that_are_there_are_not_replaced(given: dict[str, Any]) -> None:
    result = sample("--server", "http://localhost:1", rows=[{"problem": PROBLEM, **given}])
    assert result.exit_code == 3, result.output
    assert f"`{next(iter(given))}` is there already, and sampling would replace it" in result.stderr.replace("\n", " ")
    assert read(result) == []


@pytest.mark.parametrize("suffix", ["", "/v1", "/v1/"])
def test_candidates_come_from_a_server(serve: Serve, suffix: str) -> None:
    double = serve(chat(lambda number: fenced(RIGHT if number == 2 else WRONG)))
    settings = ["--temperature", "0.7", "--max-new-tokens", "99", "--api-key", "secret", "-n", "6"]
    result = sample("--server", double.url + suffix, *settings, rows=[{"problem": PROBLEM, "id": 1}])
    assert result.exit_code == 0, result.output
    (row,) = read(result)
    assert (row["id"], len(row["completions"]), row["stopped"]) == (1, 6, "max_samples")
    assert row["completions"].count(fenced(RIGHT)) == 1
    bodies = [body for path, body in double.asked if path == "/v1/chat/completions"]
    assert bodies == [  # one request: without --sample-cost nothing is learnt in between
        {
            "model": "writer",
            "messages": [{"role": "user", "content": PROBLEM}],
            "n": 6,
            "temperature": 0.7,
            "max_tokens": 99,
        }
    ]
    assert {headers["Authorization"] for headers in double.headers} == {"Bearer secret"}


def test_server_is_asked_no_further_where_one_more_is_not_worth_it(serve: Serve) -> None:
    double = serve(chat(lambda number: fenced(RIGHT)))
    problems = [{"problem": f"{PROBLEM} {number}"} for number in range(3)]
    result = sample(
        "--server", double.url, "--policy-model", "writer", "-n", "64", "--sample-cost", "0.01", rows=problems
    )
    assert result.exit_code == 0, result.output
    assert [(row["stopped"], len(row["completions"])) for row in read(result)] == [("low_gain", 4)] * 3
    assert [path for path, _ in double.asked] == ["/v1/chat/completions"] * 3


def test_candidates_of_a_server_are_tested_by_rank(serve: Serve, tests_file: Path) -> None:
    double = serve(chat(lambda number: fenced(RIGHT if number == 7 else WRONG)))
    sampled = sample("--server", double.url, rows=[{"problem": PROBLEM}])
    result = run("rank", "--tests", str(tests_file), rows=read(sampled))
    assert read(result)[0]["best"] == 7, result.output


def test_candidates_of_a_server_are_tested_in_their_order(serve: Serve, tests_file: Path) -> None:
    double = serve(chat(lambda number: fenced(RIGHT if number == 2 else f"{WRONG} + {number}")))
    sampled = sample("--server", double.url, "-n", "4", rows=[{"problem": PROBLEM}])
    (row,) = read(run("rank", "--tests", str(tests_file), "--keep-order", rows=read(sampled)))
    assert (row["best"], row["executions"], row["ranked"][0]["score"]) == (2, 3, None)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda path, body: (404, {"error": {"message": "no such model"}}), "no such model"),
        (lambda path, body: (200, {"choices": []}), "expected choices"),
        (lambda path, body: (200, "<html>"), "no JSON"),
        (lambda path, body: (500, "down"), "answered 500"),
    ],
)
def test_failing_server_is_one_message_that_names_it(serve: Serve, answer: Answer, said: str) -> None:
    double = serve(answer)
    result = sample("--server", double.url, "--policy-model", "writer", rows=[{"problem": PROBLEM}])
    assert result.exit_code == 1
    assert said in result.stderr
    assert double.url in result.stderr
    assert "Traceback" not in result.output


def test_problem_that_the_server_refuses_is_skipped_and_the_others_are_not_lost(
    serve: Serve,
) -> None:
    good = chat(lambda number: fenced(RIGHT))

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        refused = body["messages"][0]["content"] == "Too long."
        return (400, {"error": {"message": "context too long"}}) if refused else good(path, body)

    double = serve(answer)
    rows = [{"problem": "Too long."}, {"problem": PROBLEM, "id": 1}]
    result = sample("--server", double.url, "--policy-model", "writer", rows=rows)
    assert result.exit_code == 3, result.output
    assert [row["id"] for row in read(result)] == [1]
    assert "skipped problem 'Too long.'" in result.stderr
    assert "context too long" in result.stderr
    strict = sample("--server", double.url, "--policy-model", "writer", "--strict", rows=rows)
    assert (strict.exit_code, strict.stdout) == (1, "")


def test_server_of_several_models_wants_a_name(serve: Serve) -> None:
    double = serve(chat(lambda number: "", ("one", "two")))
    result = sample("--server", double.url, rows=[{"problem": PROBLEM}])
    assert result.exit_code == 1
    assert "serves one, two" in result.stderr


def test_answer_without_content_is_a_candidate_without_code(serve: Serve) -> None:
    double = serve(lambda path, body: (200, {"choices": [{"message": {"content": None}}] * body["n"]}))
    result = sample("--server", double.url, "--policy-model", "writer", "-n", "4", rows=[{"problem": PROBLEM}])
    assert result.exit_code == 3
    assert read(result)[0]["outcome"] == "none_valid"

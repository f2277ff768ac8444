"""`codescaler select` from the command line, with a real server of /v1/chat/completions in this process."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from codescaler_plugin import load_scorer
from codescaler_plugin.cli import app
from codescaler_plugin.selection.calibration import Calibration, read_calibration
from tests.doubles import Answer, Serve, chat
from tests.samples import fenced

PROBLEM = "Write solve(xs). From a list xs of integers, return the sum."
RIGHT = "def solve(xs):\n    return sum(xs)"
WRONG = "def solve(xs):\n    return max(xs)"
LOOP = "def solve(xs):\n    while True:\n        pass"
ROW = {"problem": PROBLEM, "completions": [fenced(WRONG), fenced(RIGHT), "I cannot.", fenced(RIGHT)]}
TESTS = {"id": "sum", "problem": PROBLEM, "tests": [[[1, 2], 3], [[5], 5]]}


@pytest.fixture(scope="module")
def scores() -> dict[str, float]:
    codes = [RIGHT, WRONG, LOOP]
    found = load_scorer("builtin").score([(PROBLEM, code + "\n") for code in codes])
    return dict(zip(codes, found, strict=True))


def select(*arguments: str, rows: list[Any] | None = None) -> Result:
    given = [ROW] if rows is None else rows
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in given)
    return CliRunner().invoke(app, ["select", "--model", "builtin", *arguments], input=text)


def read(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def tests_file(tmp_path: Path) -> Path:
    path = tmp_path / "tests.jsonl"
    path.write_text(json.dumps(TESTS) + "\n")
    return path


def test_line_for_each_problem_with_its_candidates_best_first(scores: dict[str, float]) -> None:
    result = select(rows=[{**ROW, "id": 7}])
    assert result.exit_code == 0, result.output
    (row,) = read(result)
    best = max((RIGHT, WRONG), key=scores.__getitem__)
    assert {name: row[name] for name in ("id", "problem", "completions")} == {**ROW, "id": 7}
    assert (row["outcome"], row["code"], row["executions"], row["probability"]) == ("chosen", best + "\n", 0, None)
    assert row["completions"][row["best"]] == fenced(best)
    assert row["margin"] == pytest.approx(abs(scores[RIGHT] - scores[WRONG]), abs=1e-4)
    assert sorted(one["index"] for one in row["ranked"]) == [0, 1, 2, 3]
    assert row["ranked"][-1]["status"] == "no_block"
    by_index = {one["index"]: one for one in row["ranked"]}
    assert (by_index[1]["duplicates"], by_index[3]["duplicate_of"]) == (2, 1)


def test_lines_of_one_completion_are_gathered_while_the_problem_is_the_same() -> None:
    rows = [{"problem": PROBLEM, "completion": one, "problem_id": "sum"} for one in ROW["completions"]]
    rows += [{"problem": "Another.", "completion": fenced(RIGHT)}]
    gathered, alone = read(select(rows=rows))
    (whole,) = read(select())
    assert gathered["problem_id"] == "sum"
    for name in ("problem", "completions", "outcome", "best", "code"):
        assert gathered[name] == whole[name]
    assert [one["index"] for one in gathered["ranked"]] == [one["index"] for one in whole["ranked"]]
    assert (alone["completions"], alone["best"]) == ([fenced(RIGHT)], 0)


def test_agreement_is_passed_on() -> None:
    one, other = (read(select("--self-consistency", weight))[0] for weight in ("0", "100"))
    assert other["code"] == RIGHT + "\n"
    assert other["ranked"][0]["rank_score"] > one["ranked"][0]["rank_score"] + 60


def test_bad_lines_and_problems_without_a_winner_are_reported() -> None:
    bad = ["{", {"completions": []}, {"problem": PROBLEM}, {"problem": PROBLEM, "completions": "x"}]
    result = select(rows=[*bad, {"problem": PROBLEM, "completions": [3]}, {"problem": PROBLEM, "completions": ["no"]}])
    assert result.exit_code == 3
    (row,) = read(result)
    assert (row["outcome"], row["best"], row["code"]) == ("none_valid", None, "")
    assert "1 no_block" in row["explanation"]
    for said in (
        "line 1: not JSON",
        "line 2: expected",
        "`completions` or `completion`",
        "is no list",
        "completion 0",
    ):
        assert said in result.stderr, said
    assert result.stderr.count("skipped") == 5
    strict = select("--strict", rows=bad[:1])
    assert (strict.exit_code, strict.stdout) == (1, "")


def test_tests_decide_and_are_run_in_the_sandbox(tests_file: Path) -> None:
    completions = [fenced(WRONG), fenced(LOOP), fenced(RIGHT)]
    result = select(
        "--tests", str(tests_file), "--timeout", "0.5", rows=[{"problem": PROBLEM, "completions": completions}]
    )
    assert result.exit_code == 0, result.output
    (row,) = read(result)
    assert (row["code"], row["best"]) == (RIGHT + "\n", 2)
    assert 1 <= row["executions"] <= 3
    assert row["ranked"][0]["passed"] is True
    failed = select("--tests", str(tests_file), rows=[{"problem": PROBLEM, "completions": [fenced(WRONG)]}])
    assert failed.exit_code == 3
    assert read(failed)[0]["outcome"] == "all_failed"
    kept = select("--tests", str(tests_file), "--budget", "0")
    assert read(kept)[0]["executions"] == 0


def test_tests_are_found_by_id_and_a_problem_without_tests_is_reported(tests_file: Path) -> None:
    rows = [{"problem": "In other words.", "problem_id": "sum", "completions": [fenced(RIGHT)]}]
    rows += [{"problem": "Unknown.", "completions": [fenced(RIGHT)]}]
    result = select("--tests", str(tests_file), rows=rows)
    assert result.exit_code == 3
    assert [row["ranked"][0]["passed"] for row in read(result)] == [True]
    assert "problem 'Unknown.': no problem with tests" in result.stderr


def test_two_problems_of_one_id_are_an_error(tests_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({**TESTS, "tests": [[[1, 2], 4]]}) + "\n")
    assert select("--tests", str(tests_file), "--tests", str(tests_file)).exit_code == 0
    result = select("--tests", str(tests_file), "--tests", str(other))
    assert result.exit_code == 1
    assert "two problems have the id 'sum'" in result.stderr


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ("0,1000,1", "cheapest: codescaler select without --tests"),
        ("1000,0,1", "cheapest: codescaler select --tests FILE --keep-order"),
        ("0,0.001,1000", "cheapest: codescaler select --tests FILE"),
    ],
)
def test_costs_say_what_to_do(costs: str, said: str, scores: dict[str, float]) -> None:
    first = max((RIGHT, WRONG), key=scores.__getitem__)
    rows = [
        {"problem": PROBLEM, "completions": [fenced(WRONG), fenced(RIGHT)], "passed": [one == WRONG, one == RIGHT]}
        for one in (first, first, first, first, RIGHT, WRONG)
    ]
    result = select("--costs", costs, rows=rows)
    assert result.exit_code == 0, result.output
    assert said in result.stderr


def test_calibration_is_fitted_used_and_held_to_its_model(tmp_path: Path, tests_file: Path) -> None:
    file = tmp_path / "calibration.json"
    rows = [{**ROW, "problem": f"{PROBLEM} {number}", "passed": [False, True, False, True]} for number in range(8)]
    made = select("--calibrate", str(file), "--costs", "0.01,0.1,10", rows=rows)
    assert (made.exit_code, made.stdout) == (0, "")
    assert "programs run" in made.stderr
    assert "cheapest: " in made.stderr
    fitted = read_calibration(file)
    assert (fitted.examples, fitted.model) == (8, "first of N by builtin, self-consistency 0")
    (row,) = read(select("--calibration", str(file)))
    assert row["probability"] == pytest.approx(fitted.probability([row["margin"]])[0])
    other = select("--calibration", str(file), "--self-consistency", "1")
    assert other.exit_code == 1
    assert "was fitted for" in other.stderr
    assert "--calibrate" in other.stderr


@pytest.fixture
def labelled(scores: dict[str, float]) -> list[dict[str, Any]]:
    """The reward model is right three times of four; the program given second is right three times of four."""
    first, second = sorted((RIGHT, WRONG), key=scores.__getitem__, reverse=True)
    rows = [
        {"problem": PROBLEM, "completions": [fenced(second), fenced(first)], "passed": [n % 4 == 3, n % 4 < 3]}
        for n in range(16)
    ]
    return [{**row, "problem": f"{PROBLEM} {n}"} for n, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("costs", "way", "executions", "scored"),
    [
        ("0,1000,1", "without --tests", 0, True),
        ("1000,0,1", "--tests FILE --keep-order", 3, False),
        ("0,0.001,1000", "--tests FILE --calibration FILE --target ", 1, True),
    ],
)
def test_cheapest_way_by_a_calibration_is_gone_and_said(
    tmp_path: Path,
    tests_file: Path,
    labelled: list[dict[str, Any]],
    scores: dict[str, float],
    costs: str,
    way: str,
    executions: int,
    scored: bool,
) -> None:
    file = str(tmp_path / "calibration.json")
    assert select("--calibrate", file, rows=labelled).exit_code == 0
    first, second = sorted((RIGHT, WRONG), key=scores.__getitem__, reverse=True)
    tests_file.write_text(json.dumps({**TESTS, "tests": [[[1, 2], 3 if first == RIGHT else 2]]}) + "\n")
    rows = [{"problem": PROBLEM, "completions": [fenced("x = 1"), fenced(second), fenced(first)]}]
    result = select("--tests", str(tests_file), "--calibration", file, "--costs", costs, rows=rows)
    assert result.exit_code == 0, result.output
    (row,) = read(result)
    assert f"applied: codescaler select {way}" in result.stderr
    assert "cost a problem" in result.stderr
    assert (row["code"], row["executions"]) == (first + "\n", executions)
    assert all((one["score"] is not None) == scored for one in row["ranked"])


def test_calibration_without_plans_cannot_choose(tmp_path: Path, tests_file: Path) -> None:
    made = certain(tmp_path, 0.9)
    result = select("--tests", str(tests_file), "--calibration", made, "--costs", "1,2,3")
    assert result.exit_code == 1
    assert "--calibrate" in result.stderr
    assert "plans" in result.stderr


def test_tests_alone_run_programs_keep_order_and_need_no_model(tests_file: Path) -> None:
    completions = [fenced(LOOP), fenced(WRONG), "no code", fenced(RIGHT)]
    rows = [{"problem": PROBLEM, "completions": completions}, {"problem": PROBLEM, "completions": ["no code"]}]
    result = select(
        "--tests", str(tests_file), "--keep-order", "--timeout", "0.5", "--model", "/no/such/model", rows=rows
    )
    assert result.exit_code == 3, result.output
    row, empty = read(result)
    assert (row["best"], row["executions"], row["margin"]) == (3, 3, None)
    assert [one["index"] for one in row["ranked"]] == [3, 0, 1, 2]
    assert (empty["outcome"], empty["explanation"]) == (
        "none_valid",
        "none of 1 candidates has valid code: 1 no_block",
    )
    one = select("--tests", str(tests_file), "--keep-order", "--budget", "1", rows=rows[:1])
    assert (read(one)[0]["outcome"], read(one)[0]["executions"]) == ("unscored", 1)


def certain(tmp_path: Path, probability: float) -> str:
    file = tmp_path / f"{probability}.json"
    model = "first of N by builtin, self-consistency 0"
    file.write_text(Calibration("isotonic", 10, 5, knots=((0.0, probability),), model=model).to_json())
    return str(file)


def test_confidence_decides_whether_tests_run_or_a_choice_is_made(tmp_path: Path, tests_file: Path) -> None:
    sure, unsure = certain(tmp_path, 0.97), certain(tmp_path, 0.6)
    tested = ["--tests", str(tests_file), "--target", "0.9"]
    assert read(select(*tested, "--calibration", sure))[0]["executions"] == 0
    assert read(select(*tested, "--calibration", unsure))[0]["executions"] > 0
    result = select("--calibration", unsure, "--abstain-below", "0.9")
    assert result.exit_code == 3
    assert (read(result)[0]["outcome"], read(result)[0]["probability"]) == ("abstained", 0.6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--abstain-below", "0.5"], "calibration"),
        (["--calibration", "missing.json"], "missing.json"),
        (["--tests", "missing.jsonl"], "missing.jsonl"),
        (["--extraction", "best"], "extraction is 'best'"),
        (["--costs", "1,2"], "three numbers"),
        (["--calibrate", "x.json", "--costs", "1,2,3", "--tests", "x.jsonl"], "leave out --tests"),
        (["--costs", "1,2,3", "--tests", "x.jsonl"], "wants --calibration"),
        (["--costs", "1,2,3", "--tests", "x.jsonl", "--budget", "1"], "leave out --budget"),
        (["--keep-order"], "--keep-order without --tests"),
        (["--keep-order", "--tests", "x.jsonl", "--self-consistency", "1"], "leave out --self-consistency"),
        (["--calibrate", "x.json", "--generate", "http://localhost:1"], "leave out"),
        (["--tests", "x.jsonl", "--abstain-below", "0.5"], "--target"),
        (["--cost", "0.1"], "--generate"),
        (["-n", "4", "--temperature", "0.5"], "-n, --temperature without --generate"),
        (["--budget", "1", "--generated-tests"], "--budget, --generated-tests without --tests"),
        (["--tests", "x.jsonl", "--target", "0.5"], "--target without --calibration"),
        (["--costs", "1,nan,3"], "finite costs"),
        (["--show", "2"], "no problem 2"),
    ],
)
def test_wrong_setting_is_one_message(arguments: list[str], said: str) -> None:
    result = select(*arguments, rows=[{**ROW, "passed": [False, True, False, True]}])
    assert result.exit_code == 1, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_address_that_is_none_is_one_message() -> None:
    result = select("--generate", "localhost:1", rows=[{"problem": PROBLEM}])
    assert result.exit_code == 1, result.output
    assert "no server's address" in result.stderr


# A table of one problem


def test_table_shows_all_programs_and_the_winners_code(tests_file: Path) -> None:
    result = select("--show", "2", "--tests", str(tests_file), rows=[{"problem": "First.", "completions": []}, ROW])
    assert result.exit_code == 0, result.output
    assert "First." not in result.stdout
    for said in ("return the sum.", "▶", "passes all tests", "return sum(xs)", "no_block", "chosen: candidate 1"):
        assert said in result.stdout, said
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_code_cannot_steer_the_terminal_or_reorder_what_it_shows() -> None:
    code = RIGHT + "  # \x1b[2J\x1b]0;title\x07 \u202e reversed"
    result = select("--show", "1", rows=[{"problem": "Sum.\x1b[1A", "completions": [fenced(code)]}])
    assert result.exit_code == 0, result.output
    assert "# \ufffd[2J\ufffd]0;title\ufffd \ufffd reversed" in result.stdout
    assert not {"\x1b", "\x07", "\u202e"} & set(result.stdout)


def test_table_of_a_problem_reads_nothing_beyond_it() -> None:
    result = select("--show", "1", rows=[ROW, {"problem": "Next."}, {"problem": "After."}])
    assert (result.exit_code, result.stderr) == (0, "")


# A server that writes candidates


@pytest.mark.parametrize("given", [{"completions": [RIGHT]}, {"completion": RIGHT}])
def test_candidates_that_are_there_are_not_replaced(given: dict[str, Any]) -> None:
    result = select("--generate", "http://localhost:1", rows=[{"problem": PROBLEM, **given}])
    assert result.exit_code == 3, result.output
    assert f"`{next(iter(given))}` is there already, and --generate would replace it" in result.stderr.replace(
        "\n", " "
    )
    assert read(result) == []


@pytest.mark.parametrize("suffix", ["", "/v1", "/v1/"])
def test_candidates_come_from_a_server(serve: Serve, suffix: str) -> None:
    double = serve(chat(lambda number: fenced(RIGHT if number == 2 else WRONG)))
    settings = ["--temperature", "0.7", "--max-tokens", "99", "--api-key", "secret", "-n", "6"]
    result = select("--generate", double.url + suffix, *settings, rows=[{"problem": PROBLEM, "id": 1}])
    assert result.exit_code == 0, result.output
    (row,) = read(result)
    assert (row["id"], len(row["completions"]), row["stopped"]) == (1, 6, "max_samples")
    assert row["completions"].count(fenced(RIGHT)) == 1
    bodies = [body for path, body in double.asked if path == "/v1/chat/completions"]
    assert bodies == [  # one request: without --cost nothing is learnt in between
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
    result = select("--generate", double.url, "--generator", "writer", "-n", "64", "--cost", "0.01", rows=problems)
    assert result.exit_code == 0, result.output
    assert [(row["stopped"], len(row["completions"])) for row in read(result)] == [("low_gain", 4)] * 3
    assert [path for path, _ in double.asked] == ["/v1/chat/completions"] * 3


def test_answers_of_a_server_are_tested(serve: Serve, tests_file: Path) -> None:
    double = serve(chat(lambda number: fenced(RIGHT if number == 7 else WRONG)))
    result = select("--generate", double.url, "--tests", str(tests_file), rows=[{"problem": PROBLEM}])
    assert read(result)[0]["best"] == 7, result.output


def test_answers_of_a_server_are_tested_keep_order(serve: Serve, tests_file: Path) -> None:
    double = serve(chat(lambda number: fenced(RIGHT if number == 2 else f"{WRONG} + {number}")))
    arguments = ["--generate", double.url, "-n", "4", "--tests", str(tests_file), "--keep-order"]
    (row,) = read(select(*arguments, rows=[{"problem": PROBLEM}]))
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
    result = select("--generate", double.url, "--generator", "writer", rows=[{"problem": PROBLEM}])
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
    result = select("--generate", double.url, "--generator", "writer", rows=rows)
    assert result.exit_code == 3, result.output
    assert [row["id"] for row in read(result)] == [1]
    assert "skipped problem 'Too long.'" in result.stderr
    assert "context too long" in result.stderr
    strict = select("--generate", double.url, "--generator", "writer", "--strict", rows=rows)
    assert (strict.exit_code, strict.stdout) == (1, "")


def test_server_of_several_models_wants_a_name(serve: Serve) -> None:
    double = serve(chat(lambda number: "", ("one", "two")))
    result = select("--generate", double.url, rows=[{"problem": PROBLEM}])
    assert result.exit_code == 1
    assert "serves one, two" in result.stderr


def test_answer_without_content_is_a_candidate_without_code(serve: Serve) -> None:
    double = serve(lambda path, body: (200, {"choices": [{"message": {"content": None}}] * body["n"]}))
    result = select("--generate", double.url, "--generator", "writer", "-n", "4", rows=[{"problem": PROBLEM}])
    assert result.exit_code == 3
    assert read(result)[0]["outcome"] == "none_valid"

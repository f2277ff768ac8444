"""`codescaler rank` from the command line."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cli.selecting import LOOP, PROBLEM, RIGHT, ROW, TESTS, WRONG, certain, read, run
from tests.samples import fenced

rank = partial(run, "rank")


def test_line_for_each_problem_with_its_candidates_best_first(scores: dict[str, float]) -> None:
    result = rank(rows=[{**ROW, "id": 7}])
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
    gathered, alone = read(rank(rows=rows))
    (whole,) = read(rank())
    assert gathered["problem_id"] == "sum"
    for name in ("problem", "completions", "outcome", "best", "code"):
        assert gathered[name] == whole[name]
    assert [one["index"] for one in gathered["ranked"]] == [one["index"] for one in whole["ranked"]]
    assert (alone["completions"], alone["best"]) == ([fenced(RIGHT)], 0)


def test_self_consistency_is_passed_on() -> None:
    one, other = (read(rank("--self-consistency", weight))[0] for weight in ("0", "100"))
    assert other["code"] == RIGHT + "\n"
    assert other["ranked"][0]["rank_score"] > one["ranked"][0]["rank_score"] + 60


def test_bad_lines_and_problems_without_a_winner_are_reported() -> None:
    bad = ["{", {"completions": []}, {"problem": PROBLEM}, {"problem": PROBLEM, "completions": "x"}]
    result = rank(rows=[*bad, {"problem": PROBLEM, "completions": [3]}, {"problem": PROBLEM, "completions": ["no"]}])
    assert result.exit_code == 3
    (row,) = read(result)
    assert (row["outcome"], row["best"], row["code"]) == ("none_valid", None, "")
    assert "1 no_block" in row["explanation"]
    for said in (
        "line 1: not JSON",
        "line 2: expected",
        "'completions' or 'responses' or 'generations'",
        "is no list",
        "completion 0",
    ):
        assert said in result.stderr, said
    assert sum(line.startswith("skipped") for line in result.stderr.splitlines()) == 5
    assert "ranked 1 of 6 problems" in result.stderr
    strict = rank("--strict", rows=bad[:1])
    assert (strict.exit_code, strict.stdout) == (1, "")


def test_tests_decide_and_are_run_in_the_sandbox(tests_file: Path) -> None:
    completions = [fenced(WRONG), fenced(LOOP), fenced(RIGHT)]
    result = rank(
        "--tests", str(tests_file), "--timeout", "0.5", rows=[{"problem": PROBLEM, "completions": completions}]
    )
    assert result.exit_code == 0, result.output
    (row,) = read(result)
    assert (row["code"], row["best"]) == (RIGHT + "\n", 2)
    assert 1 <= row["executions"] <= 3
    assert row["ranked"][0]["passed"] is True
    failed = rank("--tests", str(tests_file), rows=[{"problem": PROBLEM, "completions": [fenced(WRONG)]}])
    assert failed.exit_code == 3
    assert read(failed)[0]["outcome"] == "all_failed"
    kept = rank("--tests", str(tests_file), "--budget", "0")
    assert read(kept)[0]["executions"] == 0


def test_tests_are_found_by_id_and_a_problem_without_tests_is_reported(tests_file: Path) -> None:
    rows = [{"problem": "In other words.", "problem_id": "sum", "completions": [fenced(RIGHT)]}]
    rows += [{"problem": "Unknown.", "completions": [fenced(RIGHT)]}]
    result = rank("--tests", str(tests_file), rows=rows)
    assert result.exit_code == 3
    assert [row["ranked"][0]["passed"] for row in read(result)] == [True]
    assert "problem 'Unknown.': no problem with tests" in result.stderr


def test_two_problems_of_one_id_are_an_error(tests_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({**TESTS, "tests": [[[1, 2], 4]]}) + "\n")
    assert rank("--tests", str(tests_file), "--tests", str(tests_file)).exit_code == 0
    result = rank("--tests", str(tests_file), "--tests", str(other))
    assert result.exit_code == 1
    assert "two problems have the id 'sum'" in result.stderr


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
    assert run("calibrate", "--output", file, rows=labelled).exit_code == 0
    first, second = sorted((RIGHT, WRONG), key=scores.__getitem__, reverse=True)
    tests_file.write_text(json.dumps({**TESTS, "tests": [[[1, 2], 3 if first == RIGHT else 2]]}) + "\n")
    rows = [{"problem": PROBLEM, "completions": [fenced("x = 1"), fenced(second), fenced(first)]}]
    result = rank("--tests", str(tests_file), "--calibration", file, "--costs", costs, rows=rows)
    assert result.exit_code == 0, result.output
    (row,) = read(result)
    assert f"applied: codescaler rank {way}" in result.stderr
    assert "cost a problem" in result.stderr
    assert (row["code"], row["executions"]) == (first + "\n", executions)
    assert all((one["score"] is not None) == scored for one in row["ranked"])


def test_calibration_without_plans_cannot_choose(tmp_path: Path, tests_file: Path) -> None:
    made = certain(tmp_path, 0.9)
    result = rank("--tests", str(tests_file), "--calibration", made, "--costs", "1,2,3")
    assert result.exit_code == 1
    assert "codescaler calibrate" in result.stderr
    assert "plans" in result.stderr


def test_tests_alone_run_programs_keep_order_and_need_no_model(tests_file: Path) -> None:
    completions = [fenced(LOOP), fenced(WRONG), "no code", fenced(RIGHT)]
    rows = [{"problem": PROBLEM, "completions": completions}, {"problem": PROBLEM, "completions": ["no code"]}]
    result = rank(
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
    one = rank("--tests", str(tests_file), "--keep-order", "--budget", "1", rows=rows[:1])
    assert (read(one)[0]["outcome"], read(one)[0]["executions"]) == ("unscored", 1)


def test_confidence_decides_whether_tests_run_or_a_choice_is_made(tmp_path: Path, tests_file: Path) -> None:
    sure, unsure = certain(tmp_path, 0.97), certain(tmp_path, 0.6)
    tested = ["--tests", str(tests_file), "--target", "0.9"]
    assert read(rank(*tested, "--calibration", sure))[0]["executions"] == 0
    assert read(rank(*tested, "--calibration", unsure))[0]["executions"] > 0
    result = rank("--calibration", unsure, "--abstain-below", "0.9")
    assert result.exit_code == 3
    assert (read(result)[0]["outcome"], read(result)[0]["probability"]) == ("abstained", 0.6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--abstain-below", "0.5"], "calibration"),
        (["--calibration", "missing.json"], "missing.json"),
        (["--tests", "missing.jsonl"], "missing.jsonl"),
        (["--extraction", "best"], "extraction is 'best'"),
        (["--costs", "1,2", "--tests", "x.jsonl"], "three numbers"),
        (["--costs", "1,2,3"], "--costs without --tests"),
        (["--costs", "1,2,3", "--tests", "x.jsonl"], "wants --calibration"),
        (["--costs", "1,2,3", "--tests", "x.jsonl", "--budget", "1"], "leave out --budget"),
        (["--keep-order"], "--keep-order without --tests"),
        (["--keep-order", "--tests", "x.jsonl", "--self-consistency", "1"], "leave out --self-consistency"),
        (["--tests", "x.jsonl", "--abstain-below", "0.5"], "--target"),
        (["--budget", "1", "--generated-tests"], "--budget, --generated-tests without --tests"),
        (["--tests", "x.jsonl", "--target", "0.5"], "--target without --calibration"),
        (["--costs", "1,nan,3", "--tests", "x.jsonl"], "finite costs"),
        (["--show", "2"], "no problem 2"),
    ],
)
def test_wrong_setting_is_one_message(arguments: list[str], said: str) -> None:
    result = rank(*arguments, rows=[{**ROW, "passed": [False, True, False, True]}])
    assert result.exit_code == 1, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_table_shows_all_programs_and_the_winners_code(tests_file: Path) -> None:
    result = rank("--show", "2", "--tests", str(tests_file), rows=[{"problem": "First.", "completions": []}, ROW])
    assert result.exit_code == 0, result.output
    assert "First." not in result.stdout
    for said in ("return the sum.", "▶", "passes all tests", "return sum(xs)", "no_block", "chosen: candidate 1"):
        assert said in result.stdout, said
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_code_cannot_steer_the_terminal_or_reorder_what_it_shows() -> None:
    code = RIGHT + "  # \x1b[2J\x1b]0;title\x07 \u202e reversed"
    result = rank("--show", "1", rows=[{"problem": "Sum.\x1b[1A", "completions": [fenced(code)]}])
    assert result.exit_code == 0, result.output
    assert "# \ufffd[2J\ufffd]0;title\ufffd \ufffd reversed" in result.stdout
    assert not {"\x1b", "\x07", "\u202e"} & set(result.stdout)


def test_table_of_a_problem_reads_nothing_beyond_it() -> None:
    result = rank("--show", "1", rows=[ROW, {"problem": "Next."}, {"problem": "After."}])
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("rank", "--server"),
        ("rank", "--sample-cost"),
        ("calibrate", "--tests"),
        ("calibrate", "--show"),
        ("sample", "--tests"),
    ],
)
def test_option_of_another_command_is_a_usage_error(command: str, option: str) -> None:
    result = run(command, option, "1", rows=[])
    assert result.exit_code == 2
    assert f"No such option: {option}" in result.stderr


def test_a_problem_that_comes_again_is_told() -> None:
    rows = [{"problem": text, "completion": fenced(RIGHT)} for text in ("One.", "Two.", "One.")]
    result = rank(rows=rows)
    assert len(read(result)) == 3
    assert "1 times a problem came again after rows of others" in result.stderr.replace("\n", " ")

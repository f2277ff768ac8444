"""`codescaler mine` and `codescaler augment` as their users see them."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner, Result

from codescaler_plugin.cli import app
from codescaler_plugin.data.pairs import read_pairs
from codescaler_plugin.records import CallTest
from tests.doubles import Double
from tests.execution.test_remote_sandbox import run_code
from tests.preference.test_augmentation import world


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def verdict(problem: str, code: str, passed: bool) -> dict[str, Any]:
    return {
        "problem": problem,
        "code": code,
        "status": "ok",
        "passed": passed,
        "tests_passed": 2 * passed,
        "tests_total": 2,
    }


ROWS = [
    verdict("A", "x = 1", True),
    verdict("A", "x = 2", False),
    verdict("B b", "y = 1", True),
    verdict("B b", "y = 2", False),
]


def test_verdicts_become_pairs_a_report_and_a_summary(tmp_path: Path) -> None:
    output = tmp_path / "pairs.jsonl"
    result = run("mine", write(tmp_path / "v.jsonl", *ROWS), "--output", output)
    assert result.exit_code == 0, result.output
    assert [(pair.chosen, pair.rejected) for pair in read_pairs(output)] == [("x = 1", "x = 2"), ("y = 1", "y = 2")]
    assert "4 rows gave 2 pairs" in result.stderr
    assert result.stdout == ""
    [report] = json.loads((tmp_path / "pairs.report.json").read_text())
    assert report["pairs"] == 2


def test_pairs_are_cleaned_in_the_same_way(tmp_path: Path) -> None:
    row = {"question_content": "Add.", "code_pos": "x = 1", "code_neg": "x = 2"}
    other = row | {"code_pos": "x = 1  # too"}
    result = run("mine", write(tmp_path / "p.jsonl", row, other), "--output", tmp_path / "o.parquet")
    assert result.exit_code == 0, result.output
    assert len(list(read_pairs(tmp_path / "o.parquet"))) == 1
    assert "dropped: same program" in result.stderr


def test_evaluation_problems_are_removed_by_the_name_of_their_file(tmp_path: Path) -> None:
    source, bench = write(tmp_path / "v.jsonl", *ROWS), write(tmp_path / "bench.jsonl", {"prompt": "B b"})
    run("mine", source, "--output", tmp_path / "o.jsonl", "--decontaminate", bench)
    assert [pair.problem for pair in read_pairs(tmp_path / "o.jsonl")] == ["A"]
    [report] = json.loads((tmp_path / "o.report.json").read_text())
    assert report["contamination"][0]["evaluation"] == "bench"


def test_evaluation_sets_of_one_name_all_count(tmp_path: Path) -> None:
    source, benches = write(tmp_path / "v.jsonl", *ROWS, verdict("C", "z = 1", True), verdict("C", "z = 2", False)), []
    for name in ("A", "B b"):
        (tmp_path / name).mkdir()
        benches += ["--decontaminate", write(tmp_path / name / "test.jsonl", {"prompt": name})]
    run("mine", source, "--output", tmp_path / "o.jsonl", *benches)
    assert [pair.problem for pair in read_pairs(tmp_path / "o.jsonl")] == ["C"]


@pytest.mark.parametrize("columns", ["trl", "openrlhf", "codescaler"])
def test_each_trainers_columns(tmp_path: Path, columns: str) -> None:
    run("mine", write(tmp_path / "v.jsonl", *ROWS), "--output", tmp_path / "o.jsonl", "--format", columns)
    assert {pair.chosen for pair in read_pairs(tmp_path / "o.jsonl")} == {"x = 1", "y = 1"}


def test_a_bad_row_is_named_and_skipped_and_the_exit_code_says_so(tmp_path: Path) -> None:
    source = write(tmp_path / "v.jsonl", *ROWS)
    source.write_text(source.read_text() + "no json\n")
    result = run("mine", source, "--output", tmp_path / "o.jsonl")
    assert result.exit_code == 3
    assert "skipped v.jsonl, line 5: not JSON" in result.stderr
    assert len(list(read_pairs(tmp_path / "o.jsonl"))) == 2


def test_a_bad_pair_is_named_and_skipped(tmp_path: Path) -> None:
    row = {"problem": "A", "chosen": "x = 1", "rejected": "x = 2"}
    result = run("mine", write(tmp_path / "p.jsonl", row, row | {"rejected": ""}), "--output", tmp_path / "o.jsonl")
    assert result.exit_code == 3
    assert "skipped p.jsonl, line 2: the rejected side is empty" in result.stderr
    assert len(list(read_pairs(tmp_path / "o.jsonl"))) == 1


def test_an_input_is_never_written_over(tmp_path: Path) -> None:
    source = write(tmp_path / "v.jsonl", *ROWS)
    before = source.read_text()
    pair = write(tmp_path / "p.jsonl", {"problem": "A", "chosen": "x = 1", "rejected": "x = 2"})
    for command, file in (("mine", source), ("augment", pair)):
        result = run(command, file, "--output", file.parent / "." / file.name)
        assert result.exit_code == 1
        assert "would be written over" in result.stderr
    assert source.read_text() == before


def test_outputs_that_differ_behind_a_dot_have_reports_of_their_own(tmp_path: Path) -> None:
    source = write(tmp_path / "v.jsonl", *ROWS)
    for name in ("hard0.3", "hard0.5"):
        assert run("mine", source, "--output", tmp_path / f"{name}.jsonl").exit_code == 0
        assert (tmp_path / f"{name}.report.json").exists()


def test_no_pairs_is_an_error_that_shows_why(tmp_path: Path) -> None:
    result = run("mine", write(tmp_path / "v.jsonl", ROWS[0]), "--output", tmp_path / "o.jsonl")
    assert result.exit_code == 1
    assert "problems: all pass" in result.stderr
    assert "no pairs: a pair needs" in result.stderr
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.jsonl"], "missing.jsonl is no file"),
        (["{v}", "--format", "csv"], "expected one of pairs"),
        (["{v}", "--output", "{v}.csv"], "expected .jsonl"),
        (["{v}", "--output", "{v}/no/o.jsonl"], "make it first"),
        (["{v}", "--decontaminate", "nothing.jsonl"], "nothing.jsonl is no file"),
        (["{empty}"], "no rows"),
        (["{wrong}"], "has no 'code'"),
    ],
)
def test_errors_name_the_offender(tmp_path: Path, arguments: list[str], words: str) -> None:
    names = {
        "v": write(tmp_path / "v.jsonl", *ROWS),
        "empty": write(tmp_path / "empty.jsonl"),
        "wrong": write(tmp_path / "wrong.jsonl", {"problem": "A"}),
    }
    filled = [argument.format(**names) for argument in arguments]
    if "--output" not in filled:
        filled += ["--output", str(tmp_path / "o.jsonl")]
    result = run("mine", *filled)
    assert result.exit_code == 1, result.output
    assert words in result.stderr


def test_a_card_is_written_on_request(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run(
        "mine", write(tmp_path / "v.jsonl", *ROWS), "--output", tmp_path / "o.jsonl", "--card", tmp_path / "card"
    )
    assert result.exit_code == 0, result.output
    assert "README.md" in result.stderr
    assert "2 pairs of a right and a wrong program" in (tmp_path / "card" / "README.md").read_text()


def problems_and_pairs(folder: Path) -> tuple[Path, Path]:
    from dataclasses import asdict

    pairs, problems = world()
    rows = [
        {
            "problem_id": one.id,
            "problem": one.text,
            "tests": [[test.arguments[0], test.expected] for test in cast("tuple[CallTest, ...]", one.tests)],
        }
        for one in problems
    ]
    return write(folder / "problems.jsonl", *rows), write(folder / "pairs.jsonl", *map(asdict, pairs))


def test_augment_adds_confirmed_pairs_and_keeps_the_earlier_report(tmp_path: Path) -> None:
    problems, pairs = problems_and_pairs(tmp_path)
    (tmp_path / "pairs.report.json").write_text('[{"earlier": 1}]')
    result = run(
        "augment", pairs, "--tests", problems, "--output", tmp_path / "o.jsonl", "--kind", "stub=0.5", "--kind", "rename=0.5",
        "--workers", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    kinds = [pair.kind for pair in read_pairs(tmp_path / "o.jsonl")]
    assert sorted(kinds) == ["rename"] * 2 + ["rollout"] * 4 + ["stub"] * 2
    assert "4 pairs became 8" in " ".join(result.stderr.split())
    earlier, report = json.loads((tmp_path / "o.report.json").read_text())
    assert earlier == {"earlier": 1}
    assert report["kinds"]["stub"]["made"] == 2


def test_augment_runs_programs_on_a_service_and_reads_a_named_form(tmp_path: Path) -> None:
    problems, pairs = problems_and_pairs(tmp_path)
    double = Double(run_code)
    given = ["augment", pairs, "--tests", problems, "--output", tmp_path / "o.jsonl", "--kind", "stub=0.5"]
    result = run(*given, "--executor", double.url, "--workers", 2, "--timeout", 10, "--problem-format", "pairs")
    double.close()
    assert result.exit_code == 0, result.output
    assert [pair.kind for pair in read_pairs(tmp_path / "o.jsonl")].count("stub") == 2
    assert len(double.asked) > 3  # the probes
    result = run(*given, "--problem-format", "taco")
    assert (result.exit_code, "problems.jsonl, line 1: no column" in result.stderr) == (1, True)


def test_fewer_pairs_than_wanted_is_an_exit_code(tmp_path: Path) -> None:
    _, pairs = problems_and_pairs(tmp_path)
    result = run("augment", pairs, "--output", tmp_path / "o.jsonl")
    assert result.exit_code == 3
    assert "Pairs without tests here: 4" in " ".join(result.stderr.split())
    assert len(list(read_pairs(tmp_path / "o.jsonl"))) == 4
    assert run("augment", pairs, "--output", tmp_path / "o.jsonl", "--trust-unaligned").exit_code == 0
    assert [pair.kind for pair in read_pairs(tmp_path / "o.jsonl")].count("unaligned") == 1


@pytest.mark.parametrize(
    ("kind", "words"),
    [("stub", "expected KIND=SHARE"), ("typo=1", "unknown kind 'typo'"), ("stub=x", "expected KIND=SHARE")],
)
def test_a_wrong_kind_is_an_error(tmp_path: Path, kind: str, words: str) -> None:
    _, pairs = problems_and_pairs(tmp_path)
    result = run("augment", pairs, "--output", tmp_path / "o.jsonl", "--kind", kind)
    assert result.exit_code == 1
    assert words in result.stderr


@pytest.mark.parametrize("command", ["mine", "augment"])
def test_help_fits_eighty_columns_and_names_the_exit_codes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = run(command, "--help").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "Exit code" in text


def test_pairs_that_are_held_out_can_have_a_file_of_their_own(tmp_path: Path) -> None:
    rows = [verdict(f"problem {n}", f"x = {n}{passed}", bool(passed)) for n in range(20) for passed in (0, 1)]
    train, held_out = tmp_path / "train.jsonl", tmp_path / "held_out.parquet"
    result = run("mine", write(tmp_path / "v.jsonl", *rows), "--output", train, "--held-out", "0.3", "--held-out-output", held_out)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert {pair.split for pair in read_pairs(train)} == {"train"}
    assert {pair.split for pair in read_pairs(held_out)} == {"held_out"}
    assert len(list(read_pairs(train))) + len(list(read_pairs(held_out))) == 20
    assert str(held_out) in result.stderr
    for arguments, said in (
        (("--held-out-output", held_out), "give --held-out SHARE"),
        (("--held-out", "0.3", "--held-out-output", train), "both splits"),
    ):
        result = run("mine", tmp_path / "v.jsonl", "--output", train, *arguments)
        assert (result.exit_code, said in result.stderr) == (1, True), result.stderr


CAUSES = {
    "all contaminated": (ROWS, [{"prompt": "A"}, {"prompt": "B b"}], "all 2 problems that allow a pair are contaminated: they are in bench"),
    "pairs, all contaminated": ([{"problem": "A", "chosen": "x = 1", "rejected": "x = 2"}], [{"prompt": "A"}], "all 1 problems that allow a pair are contaminated"),
    "no program": ([verdict("A", "", False) | {"status": "no_block"}] * 2, [], "none of 2 rows holds a valid program (no_block 2)"),
    "one side": (ROWS[:1], [], "a pair needs a problem with a program that passes and one that fails: 1 problems have none that fails"),
    "equal programs": ([verdict("A", "x = 1", True), verdict("A", "x  =  1", False)], [], "all programs were dropped (both sides 2"),
    "some contaminated": ([*ROWS[:2], ROWS[2]], [{"prompt": "A"}], "all 1 problems that allow a pair are contaminated"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "bench", "cause"), CAUSES.values(), ids=CAUSES.keys())
def test_no_pairs_names_its_cause(tmp_path: Path, rows: list[Any], bench: list[Any], cause: str) -> None:
    more = ["--decontaminate", write(tmp_path / "bench.jsonl", *bench)] if bench else []
    result = run("mine", write(tmp_path / "v.jsonl", *rows), "--output", tmp_path / "o.jsonl", *more)
    assert result.exit_code == 1
    assert f"no pairs: {cause}" in result.stderr

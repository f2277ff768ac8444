"""The page of judged completions: what it counts, marks, ranks, sets apart and leaves out."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from codescaler_plugin import ConfigError, DataError
from codescaler_plugin.cli import app
from codescaler_plugin.report.judged_rows import Judged, read_judged
from codescaler_plugin.report.judgements import MAX_COMPLETIONS, MAX_PROBLEMS, STRANGEST, ranks_of, write_judgements
from codescaler_plugin.report.marking import parts_of, read_again
from tests.hostile import HOSTILE, check_harmless
from tests.report.written import Page
from tests.samples import fenced

CODE = "def f(n):\n    return n < 1\n"


def row(**values: Any) -> dict[str, Any]:
    """A line of `codescaler score`."""
    given = {
        "problem": "Write f(n).",
        "completion": f"So:\n```python\n{CODE}```\nDone.",
        "reward": 1.5,
        "score": 1.25,
        "status": "ok",
        "code": CODE,
        "explanation": "The block at line 2 of the completion is a python program.",
    }
    return given | values


def invalid(**values: Any) -> dict[str, Any]:
    words = {"status": "no_block", "code": "", "score": None, "reward": 0.0, "completion": "I cannot."}
    return row(**words, explanation="The completion has no fenced block.") | values


def kept(folder: Path, *rows: Any, name: str = "judged.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return file


def page_of(folder: Path, *rows: Any) -> str:
    return write_judgements([kept(folder, *rows)], folder / "page.html")[0].read_text()


def cards(page: str) -> list[str]:
    return page.split("<article")[1:]


def report(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_a_card_marks_the_program_and_tells_status_sentence_score_reward_and_rank(tmp_path: Path) -> None:
    page = page_of(tmp_path, row(), row(score=2.0, passed=True), invalid())
    assert Page(re.sub("<input[^>]*>", "", page)).open == []
    best, second, last = cards(page)
    assert "score <b>2.000</b>" in best
    assert "rank <b>1 of 3</b>" in best
    assert "tests passed" in best
    assert "rank <b>2 of 3</b>" in second
    assert "reward <b>1.500</b>" in second
    assert "tests" not in second
    assert f"So:\n```python\n<mark>{CODE.replace('<', '&lt;')}</mark>```\nDone.</pre>" in second
    assert "The block at line 2 of the completion is a python program." in second
    assert "The completion has no fenced block." in last
    assert "rank" not in last
    assert "<mark>" not in last
    assert "line 3" in last


def test_the_page_needs_no_network_and_no_script(tmp_path: Path) -> None:
    page = page_of(tmp_path, row())
    assert not re.search(r"(?:src|href)=\"(?!#)", page)
    for part in ("url(", "@import", "<script", "http://", "https://"):
        assert part not in page
    assert "default-src 'none'" in page


def test_hostile_text_in_every_field_is_text(tmp_path: Path) -> None:
    hostile = row(
        **dict.fromkeys(("problem", "completion", "explanation", "detail", "step"), HOSTILE),
        code="alert(1)",
        passed=False,
        failure={"kind": HOSTILE, "reason": HOSTILE},
    )
    strange = [
        row(problem=HOSTILE, passed=True, score=0.0, completion=HOSTILE, code=HOSTILE),
        row(problem=HOSTILE, passed=False, score=1.0, fault=None, detail=HOSTILE),
        row(problem=HOSTILE, passed=False, score=1.0, fault=HOSTILE),
    ]
    file = kept(tmp_path, hostile, *strange)
    page = write_judgements([file], tmp_path / "page.html", title=HOSTILE)[0].read_text()
    check_harmless(page)
    assert page.count("&lt;/script&gt;") > 10
    classes = {word for name in re.findall(r'class="([^"]*)"', page) for word in name.split()}
    assert all(re.fullmatch(r"[a-z_-]+", word) for word in classes)


def test_counts_are_of_all_rows_and_each_is_a_filter_that_works_without_a_script(tmp_path: Path) -> None:
    rows = [row(passed=True), row(passed=False), invalid(), row(failure={"kind": "scorer", "reason": "down"})]
    page = page_of(tmp_path, *rows, {**invalid(), "status": None, "problem": "Another."})
    for name, count in (("ok", 2), ("no_block", 1), ("failure", 1), ("unread", 1), ("passed", 1), ("failed", 1)):
        assert f'<label for="only-{name}">{name} <b>{count}</b>' in page
        assert any(re.match(rf' class="card[^"]*\bis-{name}\b', card) for card in cards(page))
        assert f"body:has(#only-{name}:checked) .card:not(.is-{name})" in page
        assert re.search(rf'<section class="group [^"]*\bhas-{name}\b', page)
    assert '<label for="only-all">all <b>5</b>' in page


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = [row(problem=f"P{number}") for number in range(MAX_PROBLEMS + 3)]
    rows += [row(problem="P0", score=number / 100) for number in range(MAX_COMPLETIONS)]
    rows += [row(problem="P1", completion="x" * 100_000, code="")]
    page = page_of(tmp_path, *rows)
    total, shown = len(rows), MAX_PROBLEMS + MAX_COMPLETIONS
    assert f"Shown are {shown} of {total} completions: the first {MAX_PROBLEMS} of {MAX_PROBLEMS + 3} problems" in page
    assert f"{total - shown} are left out. The counts are of all." in page
    assert f'<label for="only-ok">ok <b>{total}</b>' in page
    assert len(cards(page)) == shown
    assert "1 more completions of this problem are left out." in page
    assert "95,500 characters left out" in page


def test_a_large_file_gives_a_small_page(tmp_path: Path) -> None:
    file = tmp_path / "judged.jsonl"
    with file.open("w") as sink:
        for number in range(20_000):
            sink.write(json.dumps(row(problem=f"P{number // 8}", score=number % 7, passed=number % 3 == 0)) + "\n")
    page = write_judgements([file], tmp_path / "page.html")[0].read_text()
    assert "of 20,000 completions" in page
    assert len(page) < 1_000_000


def test_the_strangest_are_set_apart_by_how_far_they_are_from_the_other_side_of_their_problem(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        row(problem="P0", score=9.0, passed=True, completion="fine"),
        row(problem="P0", score=1.0, passed=False),
        row(problem="P1", score=5.0, passed=False, completion="high and failed", code=""),
        row(problem="P1", score=1.0, passed=True),
        row(problem="P1", score=3.0, passed=True),
        row(problem="P2", score=100.0, passed=False, completion="no other side"),
        row(problem="P3", score=0.0, passed=True, completion="low and passed", code=""),
        row(problem="P3", score=2.5, passed=False),
        invalid(problem="P3", passed=False),
    )
    strange = cards(page.partition("<h2>Problems")[0])
    # 5 above the mean of 1 and 3; 1 below 5; 2.5 above 0 and 0 below 2.5; 3 below 5.
    notes = [re.search(r'class="note">(.*?)<', card)[1] for card in strange]
    assert notes == [
        "It passed, and scores 4.00 below the mean of its problem&#x27;s failed programs.",
        "It failed, and scores 3.00 above the mean of its problem&#x27;s passed programs.",
        "It passed, and scores 2.50 below the mean of its problem&#x27;s failed programs.",
        "It failed, and scores 2.50 above the mean of its problem&#x27;s passed programs.",
        "It passed, and scores 2.00 below the mean of its problem&#x27;s failed programs.",
    ]
    assert "high and failed" in strange[1]
    assert '<summary>Problem</summary><div class="problem">P1<' in strange[1]
    assert 'href="#p2"' in strange[1]
    assert "fine" not in "".join(strange)
    assert "no other side" not in "".join(strange)


def test_where_no_problem_has_both_sides_all_programs_are_compared(tmp_path: Path) -> None:
    rows = [row(problem=f"P{number}", score=float(number), passed=number < 15) for number in range(30)]
    page = page_of(tmp_path, *rows[::-1], row(problem="P30", score=-1.0, passed=False))
    assert "No problem has both a passed and a failed program" in page
    assert page.count('class="note"') == STRANGEST
    assert "above the mean of all passed programs." in page
    assert "Where score and tests disagree" not in page_of(tmp_path, row(), row(passed=True))


def test_a_program_is_marked_where_it_stands() -> None:
    def kinds(completion: str, code: str = "x = 1\n") -> list[tuple[str, str]]:
        return [(part.kind, part.text) for part in parts_of(Judged("p", completion, "ok", code=code))]

    draft = "```\nx = 1\n```\nNo.\n"
    assert kinds(draft + "```\nx = 1\n```") == [("text", draft + "```\n"), ("code", "x = 1\n"), ("text", "```")]
    assert kinds("```\r\nx = 1\r\n```")[1] == ("code", "x = 1\n")
    quoted = "> ```\n> x = 1\n>\n> y = 2\n> ```\n"
    assert kinds(quoted, "x = 1\n\ny = 2\n")[1] == ("code", "> x = 1\n>\n> y = 2")
    assert kinds("elsewhere") == [("text", "elsewhere"), ("gap", "the program:"), ("code", "x = 1\n")]
    assert kinds("x = 1\n", "x = 1\n") == [("code", "x = 1\n")]
    assert kinds("", "") == []
    long = kinds("a" * 50_000 + "\nx = 1\n" + "b" * 50_000)
    assert [kind for kind, _ in long] == ["gap", "text", "code", "text", "gap"]
    assert sum(len(text) for _, text in long) < 3_000
    assert sum(len(text) for _, text in kinds("```\n" + "x" * 90_000, "")) < 5_000


def test_what_a_row_lacks_is_read_from_the_completion_if_the_status_is_the_same() -> None:
    assert read_again(Judged("p", fenced("x = 1"), "ok")).code == "x = 1\n"
    two = fenced("x = 1") + "\n" + fenced("y = 2")
    assert read_again(Judged("p", two, "ok")).code == "y = 2\n"  # as `rank` reads it
    assert read_again(Judged("p", two, "multiple_blocks")).explanation.startswith("The completion has 2 fenced blocks")
    assert read_again(Judged("p", "No.", "ok")).code == ""
    assert read_again(Judged("p", fenced("x = 1"), "ok", code="given", explanation="Given.")).code == "given"


def test_equal_scores_share_a_rank() -> None:
    group = [Judged("p", "", "ok", score=score) for score in (1.0, 3.0, 3.0, None)]
    assert ranks_of(group) == ["3 of 4", "1 of 4", "1 of 4", ""]


def test_verified_rows_and_rows_of_csv_are_read(tmp_path: Path) -> None:
    verified = {"problem": "p", "completion": fenced("x = 1"), "status": "ok", "passed": False, "detail": "f(1) is 2"}
    timed_out = {**verified, "fault": "timeout", "detail": "3 s"}
    unrun = {**verified, "status": "no_block", "completion": "No."}
    found = list(read_judged([kept(tmp_path, verified, timed_out, unrun)]))
    assert [(one.passed, one.tests) for one in found] == [(False, "f(1) is 2"), (None, "timeout: 3 s"), (None, "")]
    table = tmp_path / "judged.csv"
    table.write_text("problem,completion,status,score,passed\np,c,ok,0.5,true\np,c,no_block,,\n")
    good, bad = read_judged([table])
    assert (good.score, good.passed, bad.score, bad.passed) == (0.5, True, None, None)


def test_ranked_rows_have_a_card_for_each_candidate(tmp_path: Path) -> None:
    candidates = [
        {"index": 1, "score": 2.0, "status": "ok", "passed": True, "fault": None, "detail": ""},
        {"index": 0, "score": None, "status": "no_block", "passed": None, "fault": None, "detail": ""},
    ]
    ranked = {"problem": "p", "completions": ["No.", fenced("x = 1")], "outcome": "chosen", "ranked": candidates}
    page = page_of(tmp_path, ranked)
    first, second = cards(page)
    assert "candidate 1" in first
    assert "<mark>x = 1\n</mark>" in first
    assert "tests passed" in first
    assert "The completion has no fenced block." in second
    several: list[list[Any]] = [[{"index": 7}], ["x"], [{}]]
    for broken in several:
        with pytest.raises(DataError, match="the index of a completion"):
            page_of(tmp_path, {**ranked, "ranked": broken})


def test_the_completions_table_of_trl_is_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = {
        "step": [10, 10, 20],
        "prompt": ["p", "p", "p"],
        "completion": [[{"role": "assistant", "content": fenced("x = 1")}], "No.", "No."],
        "codescaler_reward": [1.5, 0.0, None],
        "codescaler_reward/status": ["ok", "no_block", "None"],
        "codescaler_reward/score": [1.25, None, None],
        "codescaler_reward/explanation": ["A program.", "No block.", "There is no reward (data): so."],
        "tests/verdict": ["passed", None, None],
        "advantage": [0.1, -0.1, 0.0],
    }
    file = tmp_path / "completions_00010.parquet"
    pandas.DataFrame({**table, "completion": ["```python\nx = 1\n```", "No.", "No."]}).to_parquet(file)
    first, second, third = read_judged([file])
    assert (first.status, first.score, first.reward, first.passed, first.group) == ("ok", 1.25, 1.5, True, "step 10")
    assert (second.status, second.score, second.passed) == ("no_block", None, None)
    assert (third.status, third.reward, third.explanation) == ("", None, "There is no reward (data): so.")
    page = write_judgements([file], tmp_path / "page.html")[0].read_text()
    assert page.count("<section") == 2
    assert "Problem 2, step 20" in page


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"problem": "p", "completion": "c"}, "expected `problem`, `completion` and `status`"),
        ({"problem": "p", "completion": "c", "status": "fine"}, "status is 'fine': expected one of ok,"),
        ({"completion": "c", "status": "ok"}, "expected a column 'problem' or 'prompt'"),
        (row(score="high"), "score is 'high': expected a number"),
        (row(ranked=[]) | {"completions": "x"}, "`ranked` has no list `completions`"),
        ([1], "expected an object"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_the_command_skips_it(tmp_path: Path, bad: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"judged\.jsonl, line 2: {re.escape(message)}"):
        page_of(tmp_path, row(), bad)
    done = report(kept(tmp_path, row(), bad), "--output", tmp_path / "page.html")
    assert done.exit_code == 3
    assert message.split(":")[0] in " ".join(done.stderr.split())
    assert "wrote" in done.stderr
    assert len(cards((tmp_path / "page.html").read_text())) == 1


def test_a_page_replaces_only_a_page_and_no_input(tmp_path: Path) -> None:
    file, page = kept(tmp_path, row()), tmp_path / "page.html"
    assert report(file, "--output", page, "--title", "Step 10").exit_code == 0
    assert "<h1>Step 10</h1>" in page.read_text()
    assert report(file, "--output", page).exit_code == 0
    before = file.read_text()
    done = report(file, "--output", file)
    assert (done.exit_code, file.read_text()) == (1, before)
    page.write_text("mine")
    with pytest.raises(ConfigError, match="is not one of ours"):
        write_judgements([file], page)
    with pytest.raises(DataError, match="no judged completion"):
        write_judgements([kept(tmp_path, name="none.jsonl")], tmp_path / "other.html")


def test_files_and_folders_are_not_mixed(tmp_path: Path) -> None:
    evaluations = tmp_path / "evaluations"
    evaluations.mkdir()
    (evaluations / "pairs.x.summary.json").write_text("{}")
    done = report(kept(tmp_path, row()), evaluations)
    assert done.exit_code == 1
    assert "give judged completions, or folders of codescaler evaluate" in " ".join(done.stderr.split())
    done = report(tmp_path / "none.jsonl")
    assert (done.exit_code, done.stderr) == (1, f"error: no file or folder {tmp_path / 'none.jsonl'}\n")


def test_a_folder_of_tables_is_read(tmp_path: Path) -> None:
    tables = tmp_path / "completions"
    tables.mkdir()
    for number in (1, 2):
        kept(tables, row(problem=f"Problem {number}."), name=f"completions_{number}.jsonl")
    assert report(tables, "--output", tmp_path / "page.html").exit_code == 0
    assert "Problem 2." in (tmp_path / "page.html").read_text()


def test_gaps_of_any_writer_are_gaps_and_long_sentences_are_cut(tmp_path: Path) -> None:
    kept_row = row(passed="True", fault="NaN", detail="<NA>", explanation="x" * 1_000_000)
    [judged] = read_judged([kept(tmp_path, kept_row)])
    assert (judged.passed, judged.tests) == (True, "")
    assert len(page_of(tmp_path, kept_row)) < 20_000

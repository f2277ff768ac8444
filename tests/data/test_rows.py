"""Every form of rows, whole and damaged, by the reader itself and through the commands."""

import csv
import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from typer.testing import CliRunner, Result

from codescaler_plugin.cli import app
from codescaler_plugin.data import rows as rows_module
from codescaler_plugin.data.pairs import read_pairs
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.data.rollouts import read_rollouts, rows_of
from codescaler_plugin.data.rows import LongInt, chunked, count_rows, dumps, loads, read_rows, stem
from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.best_of_n import read_candidates
from codescaler_plugin.records import CallTest, StdioTest
from tests.samples import fenced

ROWS = [{"problem": f"Add {number}.", "completion": f'ü, "{number}"\nDone.'} for number in range(3)]
LONG = "-" + "1234567890" * 500
BOM = b"\xef\xbb\xbf"


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: list[dict[str, Any]], **settings: Any) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), **settings)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    sink = arrow.BufferOutputStream()
    with arrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
        stream.flush()  # so that the last block is an empty one
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


FORMS: dict[str, tuple[str, Callable[[list[dict[str, Any]]], bytes]]] = {
    "lines": ("a.jsonl", as_lines),
    "lines under any name": ("a.txt", as_lines),
    "lines with a mark": ("a.jsonl", lambda rows: BOM + as_lines(rows)),
    "lines of files with marks": ("a.jsonl", lambda rows: BOM + as_lines(rows[:1]) + BOM + as_lines(rows[1:])),
    "blank lines": ("a.jsonl", lambda rows: b"\n  \n" + as_lines(rows).replace(b"\n", b"\n\n \t\r\n")),
    "carriage returns": ("a.jsonl", lambda rows: as_lines(rows).replace(b"\n", b"\r\n")),
    "no last line end": ("a.jsonl", lambda rows: as_lines(rows).rstrip()),
    "array": ("a.json", lambda rows: json.dumps(rows).encode()),
    "array over lines": ("a.jsonl", lambda rows: BOM + b"\r\n" + json.dumps(rows, indent=1).encode() + b"\n\n"),
    "csv": ("a.csv", as_csv),
    "csv with a mark": ("a.csv", lambda rows: BOM + as_csv(rows)),
    "csv without a suffix": ("a", as_csv),
    "csv with line feeds and blank lines": ("a.csv", lambda rows: as_csv(rows, lineterminator="\n\n")),
    "tsv": ("a.tsv", lambda rows: as_csv(rows, delimiter="\t")),
    "tsv without a suffix": ("a", lambda rows: as_csv(rows, delimiter="\t")),
    "parquet": ("a.parquet", as_parquet),
    "parquet under another name": ("a.jsonl", as_parquet),
    "packed lines": ("a.jsonl.gz", lambda rows: gzip.compress(as_lines(rows))),
    "packed lines under another name": ("a.jsonl", lambda rows: gzip.compress(BOM + as_lines(rows))),
    "lines that only their name calls packed": ("a.jsonl.gz", as_lines),
    "packed array": ("a.json.gz", lambda rows: gzip.compress(json.dumps(rows).encode())),
    "packed csv": ("a.csv.gz", lambda rows: gzip.compress(as_csv(rows))),
    "packed parquet": ("a.parquet.gz", lambda rows: gzip.compress(as_parquet(rows))),
    "zstd lines": ("a.jsonl.zst", lambda rows: zstd(as_lines(rows))),
    "zstd array": ("a", lambda rows: zstd(json.dumps(rows).encode())),
    "zstd csv": ("a.csv.zst", lambda rows: zstd(as_csv(rows))),
    "zstd parquet": ("a.zst", lambda rows: zstd(as_parquet(rows))),
    "zstd in gzip": ("a.zst.gz", lambda rows: gzip.compress(zstd(as_lines(rows)))),
}


class Pipe(io.RawIOBase):
    """Bytes that come in small pieces, and cannot be sought in."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self.data.read(min(3, len(buffer)))
        buffer[: len(part)] = part
        return len(part)


def write(folder: Path, name: str, data: bytes) -> Path:
    file = folder / name
    file.write_bytes(data)
    return file


def rows(found: Any) -> list[Any]:
    return [str(row) if isinstance(row, DataError) else row for _, row in found]


def before_the_error(source: Any) -> tuple[list[Any], str]:
    found: list[Any] = []
    with pytest.raises(DataError) as raised:
        collect(read_rows(source), found)
    return rows(found), str(raised.value)


def collect(items: Any, found: list[Any]) -> None:
    for item in items:
        found.append(item)


@pytest.mark.parametrize(("name", "made"), FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_rows(tmp_path: Path, name: str, made: Any) -> None:
    file = write(tmp_path, name, made(ROWS))
    assert rows(read_rows(file)) == ROWS
    with file.open("rb") as stream:
        assert rows(read_rows(stream)) == ROWS


@pytest.mark.parametrize(("name", "made"), FORMS.values(), ids=FORMS)
def test_every_form_but_a_bare_name_comes_through_a_pipe(name: str, made: Any) -> None:
    assert rows(read_rows(io.BufferedReader(Pipe(made(ROWS))))) == ROWS


@pytest.mark.parametrize(("name", "made"), FORMS.values(), ids=FORMS)
def test_rollouts_are_read_from_every_form(tmp_path: Path, name: str, made: Any) -> None:
    found = read_rollouts(write(tmp_path, name, made(ROWS)))
    assert [(one.problem, one.completion) for one in found] == [(row["problem"], row["completion"]) for row in ROWS]


@pytest.mark.parametrize(("name", "made"), FORMS.values(), ids=FORMS)
def test_extract_reads_every_form(tmp_path: Path, name: str, made: Any) -> None:
    result = extract(str(write(tmp_path, name, made(ROWS))))
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["completion"] for one in found] == [row["completion"] for row in ROWS]
    from_stdin = CliRunner().invoke(app, ["extract"], input=made(ROWS))
    assert from_stdin.stdout == result.stdout


def extract(*arguments: str, stdin: bytes | str | None = None) -> Result:
    return CliRunner().invoke(app, ["extract", *arguments], input=stdin)


def test_places_are_lines_of_lines_and_rows_of_everything_else(tmp_path: Path) -> None:
    def places(name: str, data: bytes) -> list[str]:
        return [place for place, _ in read_rows(write(tmp_path, name, data))]

    assert places("a.jsonl", b"\n" + as_lines(ROWS)) == ["line 2", "line 3", "line 4"]
    for name, data in (("a.json", json.dumps(ROWS).encode()), ("a.csv", as_csv(ROWS)), ("a", as_parquet(ROWS))):
        assert places(name, data) == ["row 0", "row 1", "row 2"]


BAD = {
    "lines": ("a.jsonl", b'{"n": 1}\n{\n"\xfc"\n[1]\n' + b"[" * 5000 + b'\n{"n": 2}'),
    "a first line like an array": ("a.jsonl", b'[1]\n{"n": 1}\n{"n": 2}'),
    "an array over lines with a broken first row": ("a.json", b'[\n{"n" 0},\n{"n": 1}\n,\n{"n": 2}\n]'),
    "array": ("a.json", b'[{"n": 1}, 3, {"n": "\xfc"}, {"n": 2}]'),
}


@pytest.mark.parametrize(("name", "data"), BAD.values(), ids=BAD)
def test_a_bad_row_is_an_error_in_its_place_and_the_others_stay(tmp_path: Path, name: str, data: bytes) -> None:
    found = list(read_rows(write(tmp_path, name, data)))
    assert [row for _, row in found if isinstance(row, dict)] == [{"n": 1}, {"n": 2}]
    assert any(isinstance(row, DataError) for _, row in found)


def test_each_bad_line_says_why(tmp_path: Path) -> None:
    found = dict(read_rows(write(tmp_path, *BAD["lines"])))
    said = {place: str(row) for place, row in found.items() if isinstance(row, DataError)}
    assert said == {
        "line 2": "not JSON (Expecting property name enclosed in double quotes at column 2)",
        "line 3": "not UTF-8",
        "line 4": "expected an object",
        "line 5": "not JSON (nested too deeply)",
    }


def test_bad_rows_of_csv_are_named_and_the_others_stay(tmp_path: Path) -> None:
    data = b'n,m\n1,2\n3\n4,5,6\n\xfc,7\n8,"9"x\n10,11\n12,"13\n'
    assert rows(read_rows(write(tmp_path, "a.csv", data))) == [
        {"n": "1", "m": "2"},
        "1 cells: expected 2, as the header has",
        "3 cells: expected 2, as the header has",
        "not UTF-8",
        "not CSV (',' expected after '\"')",
        {"n": "10", "m": "11"},
        "not CSV (unexpected end of data)",
    ]


def test_a_cell_of_csv_is_text_of_any_length_and_the_limit_of_the_process_stays(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    given = [{"completion": "x" * (limit + 1), "tests": '[["1", 2]]', "n": "", "m": "NaN"}]
    assert rows(read_rows(write(tmp_path, "a.csv", as_csv(given)))) == given
    assert csv.field_size_limit() == limit


def test_steps_and_margins_of_csv_are_numbers_again(tmp_path: Path) -> None:
    row = {"problem": "p", "completion": "c", "chosen": "a", "rejected": "b"}
    given = [{**row, "step": step, "margin": margin} for step, margin in (("3", "0.5"), ("4.0", "1"), ("", ""))]
    file = write(tmp_path, "a.csv", as_csv(given))
    assert [one.step for one in read_rollouts(file)] == [3, 4, None]
    assert [(one.step, one.margin) for one in read_pairs(file)] == [(3, 0.5), (4, 1.0), (None, None)]


@pytest.mark.parametrize(
    "data", [b"", b"\n \n", BOM, b"[]", b"[ ]\n", b"n,m\n", gzip.compress(b"", mtime=0), as_parquet(ROWS[:0])]
)
def test_no_rows_are_no_error(tmp_path: Path, data: bytes) -> None:
    assert rows(read_rows(write(tmp_path, "a", data))) == []


MANY = [{"problem": f"p{number}", "completion": f"{number * 7919 % 10007:04}" * 20} for number in range(4000)]
CUT = {
    "gzip lines": ("a.jsonl.gz", lambda data: gzip.compress(as_lines(data))),
    "gzip array": ("a.json.gz", lambda data: gzip.compress(json.dumps(data).encode())),
    "gzip csv": ("a.csv.gz", lambda data: gzip.compress(as_csv(data))),
    "zstd lines": ("a.jsonl.zst", lambda data: zstd(as_lines(data))),
    "zstd array": ("a.json.zst", lambda data: zstd(json.dumps(data).encode())),
    "zstd csv": ("a.csv.zst", lambda data: zstd(as_csv(data))),
}


@pytest.mark.parametrize(("name", "made"), CUT.values(), ids=CUT)
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_rows_before_a_cut_are_given_before_the_error(tmp_path: Path, name: str, made: Any, share: float) -> None:
    data = made(MANY)
    found, error = before_the_error(write(tmp_path, name, data[: int(len(data) * share)]))
    assert found == MANY[: len(found)]
    assert len(found) > (1000 if share == 0.5 else 2500)
    assert f"{name}: what follows cannot be read; the file is cut off or damaged" in error


@pytest.mark.parametrize("made", [gzip.compress, zstd])
def test_where_only_the_checksum_is_cut_off_every_row_is_given(tmp_path: Path, made: Any) -> None:
    found, error = before_the_error(write(tmp_path, "a.gz", made(as_lines(ROWS))[:-2]))
    assert found == ROWS
    assert "cut off" in error


def test_a_cut_off_parquet_is_one_error(tmp_path: Path) -> None:
    found, error = before_the_error(write(tmp_path, "a.parquet", as_parquet(ROWS)[:-20]))
    assert not found
    assert "a.parquet is no parquet file" in error
    found, error = before_the_error(write(tmp_path, "b", gzip.compress(as_parquet(ROWS))[:-20]))
    assert "cut off" in error


def test_an_array_that_breaks_gives_what_is_before(tmp_path: Path) -> None:
    for end in (b", {", b" 3]", b"] x", b"", b",]"):
        found, error = before_the_error(write(tmp_path, "a.json", json.dumps(ROWS).encode()[:-1] + end))
        assert found == ROWS
        assert "a.json is no JSON array: " in error


OTHERS = {
    "zip archive": b"PK\x03\x04\x14\0",
    "SQLite": b"SQLite format 3\0",
    "UTF-16": '{"problem": "p"}\n'.encode("utf-16"),
    "bzip2": b"BZh91AY&SY",
    "xz": b"\xfd7zXZ\0\0\x04",
    "Arrow": b"ARROW1\0\0",
    "unknown form": b"\x80\x04\x95\0\0\0",
}


@pytest.mark.parametrize(("what", "data"), OTHERS.items(), ids=OTHERS)
def test_what_is_not_read_is_one_error_that_says_what_it_is(tmp_path: Path, what: str, data: bytes) -> None:
    file = write(tmp_path, "a.jsonl", data)
    for read in (read_rows, lambda path: rows_of(path, on_bad=pytest.fail), lambda path: read_problems(path)):
        with pytest.raises(DataError, match=rf"a\.jsonl is .*{what}.*: expected JSON lines, .*CSV.*parquet.*zstd"):
            list(read(file))
    result = extract(str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert what in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a cannot be read: Is a directory"):
        list(read_rows((tmp_path / "a").mkdir() or tmp_path / "a"))


def test_long_integers_are_exact_in_and_out() -> None:
    text = f'{{"a": [{LONG}, {LONG[1:]}], "b": {{"c": {LONG}}}, "d": "{LONG}", "e": NaN}}'
    value = loads(text)
    assert dumps(value) == text
    assert repr(value["a"][0]) == str(value["a"][0]) == f"{value['a'][0]}" == LONG
    assert value["a"][0] == -value["a"][1]
    assert value["a"][1] % 10**9 == int(LONG[-9:])
    assert isinstance(value["a"][0], LongInt)
    assert type(loads("-12")) is int
    numbers = [10**digits + 1 for digits in (599, 600, 601, 4299, 4300, 9999)]
    assert [loads("1" + "0" * (digits - 1) + "1") for digits in (599, 600, 601, 4299, 4300, 9999)] == numbers


def test_long_integers_do_not_depend_on_the_limit_of_the_process() -> None:
    limit = sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(640)
        assert dumps(loads(LONG)) == LONG
        sys.set_int_max_str_digits(0)
        assert dumps(loads(LONG)) == LONG
    finally:
        sys.set_int_max_str_digits(limit)


@pytest.mark.parametrize("column", ["id", "problem_id", "step", "seconds", "problem", "completion"])
def test_a_long_integer_in_any_column_loses_no_other_row(tmp_path: Path, column: str) -> None:
    odd = json.dumps({**ROWS[1], column: 0}).replace(f'"{column}": 0', f'"{column}": {LONG}').encode() + b"\n"
    file = write(tmp_path, "a.jsonl", as_lines(ROWS[:1]) + odd + as_lines(ROWS[2:]))
    bad: list[str] = []
    found = list(read_rollouts(file, on_bad=bad.append))
    assert [one.problem for one in found if one.problem in ("Add 0.", "Add 2.")] == ["Add 0.", "Add 2."]
    if column in ("step", "problem", "completion"):
        assert [one.split(":")[0] for one in bad] == ["a.jsonl, line 2"]
        assert len(bad[0]) < 200
    else:
        assert not bad
        assert found[1].problem_id == ("" if column in ("seconds", "id") else LONG)
    result = extract(str(file))
    kept = result.stdout.splitlines()
    assert len(kept) == (2 if column == "completion" else 3), result.output
    assert column == "completion" or f'"{column}": {LONG}' in kept[1]


@pytest.mark.parametrize("column", ["margin", "step"])
def test_a_long_integer_in_a_pair_is_one_bad_row(tmp_path: Path, column: str) -> None:
    data = f'{{"problem": "p", "chosen": "a", "rejected": "b", "{column}": {LONG}}}\n'.encode()
    bad: list[str] = []
    file = write(tmp_path, "a.jsonl", data + data.replace(LONG.encode(), b"1"))
    assert [getattr(one, column) for one in read_pairs(file, on_bad=bad.append)] == [1]
    assert f"a.jsonl, line 1: {column} is -1234" in bad[0]


def test_tests_with_long_integers_are_exact(tmp_path: Path) -> None:
    number = LONG[1:]
    functional = {"testtype": "functional", "input": f"{number}\n[{number}]", "output": number}
    given = [
        f'{{"problem": "a", "tests": [[{number}, {number}]]}}',
        json.dumps({"question": "b", "input_output": f'{{"inputs": [[{number}]], "outputs": [{number}]}}'}),
        json.dumps(
            {
                "question_content": "c",
                "public_test_cases": json.dumps([functional]),
                "metadata": '{"func_name": "f"}',
                "tests": None,
            }
        ),
    ]
    one, two, three = read_problems(write(tmp_path, "a.jsonl", "\n".join(given).encode()))
    exact = loads(number)
    assert one.tests == (CallTest((exact,), exact),)
    assert two.tests == (StdioTest(number, number),)
    test = three.tests[0]
    assert isinstance(test, CallTest)
    assert test.expected == exact
    assert number in repr(one)


def test_a_problem_with_long_integers_is_verified(tmp_path: Path) -> None:
    number = LONG[1:]
    problems = write(
        tmp_path, "p.jsonl", f'{{"id": {number}, "problem": "p", "tests": [[{number}, {number}]]}}'.encode()
    )
    answers = [
        {"problem": "p", "completion": fenced("def solve(n):\n    return n")},
        {"problem": "p", "completion": fenced("def solve(n):\n    return n + 1")},
    ]
    rollouts = write(tmp_path, "r.csv", as_csv(answers))
    output = tmp_path / "v.jsonl"
    result = CliRunner().invoke(
        app, ["verify", str(rollouts), "--tests", str(problems), "--output", str(output), "--once"]
    )
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["passed"] for line in output.read_text().splitlines()] == [True, False]


def test_what_json_lacks_is_written_as_text(tmp_path: Path) -> None:
    import datetime
    from decimal import Decimal

    row = {"completion": "c", "when": datetime.date(2026, 1, 2), "much": Decimal("1.5"), "raw": b"\xff"}
    result = extract(str(write(tmp_path, "a.parquet", as_parquet([row]))))
    found = json.loads(result.stdout)
    assert [found[name] for name in ("when", "much", "raw")] == ["2026-01-02", "1.5", "ff"]


def test_null_completions_are_completions_without_code(tmp_path: Path) -> None:
    given = [{"problem": "p", "completion": None}, {"problem": "p", "completion": fenced("x = 1")}]
    for name, data in (("a.jsonl", as_lines(given)), ("a.parquet", as_parquet(given)), ("a.csv", as_csv(given))):
        file = write(tmp_path, name, data)
        assert [one.completion for one in read_rollouts(file)] == ["", fenced("x = 1")]
        result = extract(str(file))
        assert result.exit_code == 0, result.output
        assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["no_block", "ok"]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "response": None, "extracted_code": "", "verified_score": 0.0},
        {"prompt": "p", "completion": None, "step": 1},
        {"input": "p", "output": None, "gts": ""},
        {"question": "p", "answer": None, "completion": None},
    ],
)
def test_a_null_completion_of_every_host_is_one_without_code(tmp_path: Path, row: dict[str, Any]) -> None:
    [found] = read_rollouts(write(tmp_path, "a.jsonl", as_lines([row])))
    assert (found.problem, found.completion) == ("p", "")


def test_a_null_completion_is_judged_ranked_verified_and_evaluated(tmp_path: Path, tiny_rm_dir: Path) -> None:
    right = fenced("def solve(n):\n    return n")
    given = [{"problem": "p", "completion": one, "passed": one is not None} for one in (None, right)]
    file = write(tmp_path, "a.jsonl", as_lines(given))
    scored = CliRunner().invoke(app, ["score", "--model", str(tiny_rm_dir), str(file)])
    assert scored.exit_code == 0, scored.output
    first, second = [json.loads(line) for line in scored.stdout.splitlines()]
    assert (first["completion"], first["reward"], first["status"]) == (None, 0.0, "no_block")
    assert second["status"] == "ok"
    selected = CliRunner().invoke(app, ["rank", "--model", str(tiny_rm_dir), str(file)])
    assert selected.exit_code == 0, selected.output
    assert json.loads(selected.stdout)["best"] == 1
    problems = write(tmp_path, "p.jsonl", b'{"problem": "p", "tests": [[1, 1]]}')
    output = tmp_path / "v.jsonl"
    verified = CliRunner().invoke(
        app, ["verify", str(file), "--tests", str(problems), "--output", str(output), "--once"]
    )
    assert verified.exit_code == 0, verified.output
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(one["status"], one["passed"]) for one in found] == [("no_block", False), ("ok", True)]
    [group] = read_candidates(file)
    assert group.codes == ("", "def solve(n):\n    return n\n")


def test_verify_keeps_what_is_before_a_cut_and_goes_on_with_the_whole_file(tmp_path: Path) -> None:
    problems = write(tmp_path, "p.jsonl", as_lines([{"id": "p", "problem": "p", "tests": [[1, 1]]}]))
    data = gzip.compress(as_lines([{"problem": "p", "completion": f"No {number}."} for number in range(3)]))
    output = tmp_path / "v.jsonl"

    def verify(data: bytes) -> Result:
        file = write(tmp_path, "r.jsonl.gz", data)
        return CliRunner().invoke(
            app, ["verify", str(file), "--tests", str(problems), "--output", str(output), "--once"]
        )

    cut = verify(data[:-4])
    assert cut.exit_code == 1
    assert "r.jsonl.gz: what follows cannot be read" in cut.stderr
    assert len(output.read_text().splitlines()) == 3
    assert verify(data).exit_code == 0
    assert len(output.read_text().splitlines()) == 3


def test_extract_and_rank_write_what_is_before_a_cut(tmp_path: Path, tiny_rm_dir: Path) -> None:
    file = write(tmp_path, "a.jsonl.gz", gzip.compress(as_lines(ROWS))[:-4])
    result = extract(str(file))
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 3
    assert "a.jsonl.gz: what follows cannot be read" in result.stderr
    groups = [{"problem": f"p{number}", "completions": [fenced("x = 1")]} for number in range(3)]
    file = write(tmp_path, "b.jsonl.gz", gzip.compress(as_lines(groups))[:-4])
    result = CliRunner().invoke(app, ["rank", "--model", str(tiny_rm_dir), str(file)])
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 3)
    single = [{"problem": f"p{number // 2}", "completion": fenced("x = 1")} for number in range(4)]
    file = write(tmp_path, "c.jsonl.gz", gzip.compress(as_lines(single))[:-4])
    result = CliRunner().invoke(app, ["rank", "--model", str(tiny_rm_dir), str(file)])
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 1)  # p1 may have more candidates


def test_a_completion_given_as_text_loses_its_mark(tmp_path: Path) -> None:
    result = extract("--text", "--extraction", "bare", stdin=BOM + b"x = 1\r\n")
    assert (result.exit_code, result.stdout) == (0, "x = 1\n")


def test_lines_of_stdin_are_given_as_they_come() -> None:
    program = (
        "import sys; from codescaler_plugin.data.rows import read_rows\n"
        "for place, row in read_rows(sys.stdin.buffer): print(place, row, flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(f'{{"n": {number}}}\n')
            process.stdin.flush()
            assert process.stdout.readline() == f"line {number + 1} {{'n': {number}}}\n"  # would hang
        process.stdin.close()


def test_reading_lines_imports_no_arrow(tmp_path: Path) -> None:
    file = write(tmp_path, "a.jsonl", as_lines(ROWS))
    program = (
        "import sys; from pathlib import Path; from codescaler_plugin.data.rows import read_rows\n"
        "list(read_rows(Path(sys.argv[1]))); assert 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(file)], check=True)


@pytest.mark.parametrize("made", [as_lines, as_parquet, lambda rows: gzip.compress(as_lines(rows))])
def test_rows_are_counted_by_content(tmp_path: Path, made: Any) -> None:
    assert count_rows(write(tmp_path, "a", made(ROWS))) == 3


def test_rows_that_only_parsing_tells_are_not_counted(tmp_path: Path) -> None:
    for data in (as_csv(ROWS), json.dumps(ROWS).encode(), gzip.compress(as_lines(ROWS))[:-4], b"PK\x03\x04"):
        assert count_rows(write(tmp_path, "a", data)) is None


def test_chunks_come_before_the_error_behind_them() -> None:
    def items() -> Any:
        yield from range(5)
        raise DataError("end")

    found: list[Any] = []
    with pytest.raises(DataError, match="end"):
        collect(chunked(items(), 2), found)
    assert found == [[0, 1], [2, 3], [4]]


def test_stems() -> None:
    names = ("a.jsonl", "a.json.gz", "a.csv.zst", "a.tsv", "a.parquet", "a.v2.jsonl", "a.txt")
    assert [stem(name) for name in names] == ["a", "a", "a", "a", "a", "a.v2", "a.txt"]


def test_a_line_that_is_too_long_is_named_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "_LINE", 100)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n' + '{"a": "' + "x" * 300_000 + '"}\n{"a": 2}\n')
    found = list(read_rows(path))
    assert [place for place, _ in found] == ["line 1", "line 2", "line 3"]
    assert [row for _, row in found if isinstance(row, dict)] == [{"a": 1}, {"a": 2}]
    assert "longer than" in str(found[1][1])


def test_rows_are_counted_without_being_parsed(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a.jsonl").write_text("{}\n" * 7)
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write("{}\n" * 5)
    parquet.write_table(arrow.table({"x": [1, 2, 3]}), tmp_path / "c.parquet")
    assert count_rows(tmp_path / "a.jsonl") == 7
    assert count_rows(tmp_path / "b.jsonl.gz") == 5
    assert count_rows(tmp_path) == 15
    (tmp_path / "broken.parquet").write_text("x")
    for unknown in ("broken.parquet", "none.parquet", "none.jsonl", "owner/name", "a.json"):
        assert count_rows(tmp_path / unknown) is None

"""Every command reads every form of file, by path and from stdin, with the columns of every host or the user's own."""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from typer.testing import CliRunner, Result

from codescaler_plugin.cli import app
from codescaler_plugin.data.columns import host_of
from codescaler_plugin.testing import FakeScorer
from tests.cli.commands import commands, options
from tests.doubles import Double, Serve, chat
from tests.samples import fenced

Row = dict[str, Any]

RIGHT, WRONG = "def solve(n):\n    return n + 1\n", "def solve(n):\n    return n - 1\n"
COMPLETIONS = [{"problem": "Add one to n.", "completion": fenced(code)} for code in (RIGHT, WRONG)]
CANDIDATES = [
    {
        "problem": f"Add one to n, {n}.",
        "completions": [fenced(RIGHT), fenced(WRONG)],
        "passed": [n % 3 > 0, n % 3 == 0],
    }
    for n in range(6)
]
TESTED = [{"problem": "Add one to n.", "tests": [[1, 2], [3, 4]]}]
VERDICTS = [
    {**row, "code": code, "status": "ok", "passed": code == RIGHT, "tests_passed": 1, "tests_total": 2, "step": 3}
    for row, code in zip(COMPLETIONS, (RIGHT, WRONG), strict=True)
]
PAIRS = [
    {"problem": f"Add one to n, {n}.", "chosen": f"{RIGHT}# {n}", "rejected": WRONG, "kind": "rollout"}
    for n in range(4)
]
BENCH = [{"id": str(n), "prompt": f"P{n}", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]} for n in range(3)]
COMMANDS: dict[str, tuple[list[Row], str]] = {  # rows and the other arguments of each command that reads rows
    "score": (COMPLETIONS, "--model builtin"),
    "extract": (COMPLETIONS, ""),
    "rank": (CANDIDATES, "--model builtin"),
    "calibrate": (CANDIDATES, "--model builtin --output {out}.json"),
    "sample": (TESTED, "--model builtin --server {server} -n 2"),
    "verify": (COMPLETIONS, "--tests {tests} --output {out}.jsonl"),
    "mine": (VERDICTS, "--output {out}.jsonl"),
    "augment": (PAIRS, "--kind rename=1 --output {out}.jsonl"),
    "evaluate pairs": (PAIRS, "--model builtin --output {out} --name own"),
    "evaluate rm-bench": (BENCH, "--model builtin --output {out} --name own"),
    "evaluate candidates": (VERDICTS, "--model builtin --output {out} --name own"),
    "evaluate calibration": (PAIRS, "--model builtin --output {out} --name own"),
    "evaluate robustness": (PAIRS, "--model builtin --output {out} --name own"),
    "evaluate generation": (TESTED, "--server {server} -n 2 --output {out}"),
    "report": (VERDICTS, "--output {out}.html"),
}
READ_NO_ROWS = {"quickstart", "bench", "serve", "doctor", "where"}


def as_text(value: Any) -> Any:
    """A cell of CSV."""
    return json.dumps(value) if isinstance(value, list) else value


def as_csv(rows: list[Row], delimiter: str = ",") -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows({name: as_text(value) for name, value in row.items()} for row in rows)
    return file.getvalue().encode()


def as_parquet(rows: list[Row]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows), file)
    return file.getvalue()


def as_lines(rows: list[Row]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def zstd(data: bytes) -> bytes:
    packed: bytes = arrow.Codec("zstd").compress(data, asbytes=True)
    return packed


FORMS: dict[str, Callable[[list[Row]], bytes]] = {
    ".jsonl": as_lines,
    ".json": lambda rows: json.dumps(rows, indent=1).encode(),
    ".csv": as_csv,
    ".tsv": lambda rows: as_csv(rows, "\t"),
    ".parquet": as_parquet,
    ".jsonl.gz": lambda rows: gzip.compress(as_lines(rows)),
    ".csv.zst": lambda rows: zstd(as_csv(rows)),
}


@pytest.fixture
def server(serve: Serve) -> Double:
    return serve(chat(lambda number: fenced(WRONG if number % 2 else RIGHT)))


@pytest.fixture
def run(tmp_path: Path, server: Double, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def run(command: str, source: str | Path, *more: str, stdin: bytes | None = None) -> Result:
        monkeypatch.setattr("codescaler_plugin.scoring.spec.Classifier.scorer", lambda _: FakeScorer())
        tests = tmp_path / "tests.jsonl"
        tests.write_bytes(as_lines(TESTED))
        numbers.append(len(numbers))
        out = tmp_path / f"out{len(numbers)}"
        words = COMMANDS[command][1].format(tests=tests, out=out, server=server.url).split()
        return CliRunner().invoke(app, [*command.split(), str(source), *words, *more], input=stdin)

    numbers: list[int] = []
    return run


def counted(result: Result) -> str:
    """The closing line without times, rates and paths."""
    assert result.exit_code in (0, 3), result.output
    return re.sub(r" in [\d.,]+ s( \(.*?/s\))?|; wrote .*", "", result.stderr.splitlines()[-1])


def test_no_command_is_left_out() -> None:
    assert {*COMMANDS} | READ_NO_ROWS == {*commands()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_form_is_read_from_a_file_and_from_stdin(
    command: str, run: Callable[..., Result], tmp_path: Path
) -> None:
    rows = COMMANDS[command][0]
    (tmp_path / "rows.jsonl").write_bytes(as_lines(rows))
    expected = counted(run(command, tmp_path / "rows.jsonl"))
    assert re.search(r" [1-9]", expected)
    for suffix, written in FORMS.items():
        file = tmp_path / f"rows{suffix}"
        file.write_bytes(written(rows))
        assert counted(run(command, file)) == expected, suffix
        assert counted(run(command, "-", stdin=written(rows))) == expected, f"{suffix} from stdin"


def of_host(host: str, rows: list[Row]) -> list[Row]:
    """Rows of problems and completions in the columns of a host."""
    made = {
        "trl": lambda row: {"prompt": row["problem"], "completion": row["completion"], "step": 1, "advantage": 0.5},
        "trl messages": lambda row: {
            "prompt": [{"role": "user", "content": row["problem"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        },
        "openrlhf": lambda row: {"input": row["problem"], "output": row["completion"], "label": "x"},
        "openrlhf request": lambda row: {
            "prompts": [row["problem"]],
            "query": [row["problem"] + row["completion"]],
            "labels": ["x"],
        },
        "openrlhf data": lambda row: {"query": row["problem"], "response": row["completion"], "label": "x"},
        "verl": lambda row: {"input": row["problem"], "output": row["completion"], "gts": "", "step": 1},
        "verl generation": lambda row: {
            "prompt": [{"role": "user", "content": row["problem"]}],
            "responses": [row["completion"]],
            "reward_model": {"ground_truth": "", "style": "rule"},
            "extra_info": {"index": 3},
        },
        "alpaca": lambda row: {"instruction": row["problem"], "input": "", "output": row["completion"]},
        "data sets": lambda row: {"question": row["problem"], "answer": row["completion"], "id": 1},
    }[host]
    return [made(row) for row in rows]


HOSTS = (
    "alpaca",
    "trl",
    "trl messages",
    "openrlhf",
    "openrlhf request",
    "openrlhf data",
    "verl",
    "verl generation",
    "data sets",
)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("command", ["score", "extract", "rank", "verify"])
def test_the_columns_of_every_host_are_read(
    command: str, host: str, run: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "own.jsonl").write_bytes(as_lines(COMPLETIONS))
    (tmp_path / "host.jsonl").write_bytes(as_lines(of_host(host, COMPLETIONS)))
    own, of_hosts = (run(command, tmp_path / f"{name}.jsonl") for name in ("own", "host"))
    if command == "rank" and host == "verl generation":  # two rows with lists are two groups
        assert counted(of_hosts) == "ranked 2 problems: 2 chosen"
    else:
        assert counted(of_hosts) == counted(own)


@pytest.mark.parametrize("command", COMMANDS)
def test_columns_of_ones_own_are_named(command: str, run: Callable[..., Result], tmp_path: Path) -> None:
    rows = COMMANDS[command][0]
    mapping = {name: f"my_{name}" for name in rows[0] if name not in ("id", "prompt")}
    (tmp_path / "a.jsonl").write_bytes(as_lines(rows))
    renamed = [{mapping.get(name, name): value for name, value in row.items()} for row in rows]
    (tmp_path / "b.jsonl").write_bytes(as_lines(renamed))
    text = ",".join(f"{name}={column}" for name, column in mapping.items() if name not in ("tests_passed",))
    expected = counted(run(command, tmp_path / "a.jsonl"))
    assert counted(run(command, tmp_path / "b.jsonl", "--columns", text)) == expected

    for columns, words in (
        ("problem=absent", ("no column 'absent'", "my_")),
        ("absent=problem", ("names 'absent': expected one of problem, completion",)),
        ("problem", ("expected NAME=COLUMN",)),
    ):
        result = run(command, tmp_path / "b.jsonl", "--columns", columns)
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        assert result.stderr.count("\n") == 1
        assert all(word in result.stderr for word in ("--columns", *words)), result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_column_is_one_line_that_lists_those_of_the_file(
    command: str, run: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(as_csv([{"colour": "red", "size": n} for n in range(200)]))
    result = run(command, tmp_path / "a.csv")
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert result.stderr.count("\n") == 1, result.stderr
    assert "colour" in result.stderr


def test_every_command_that_reads_rows_has_the_option() -> None:
    assert {name for name, command in commands().items() if "--columns" in options(command)} == {*COMMANDS}


def test_the_input_of_an_instruction_belongs_to_the_problem() -> None:
    row = {"instruction": "Sort.", "input": "3 1 2", "output": "x"}
    assert host_of(row).problem_of(row) == "Sort.\n\n3 1 2"


def test_stdin_is_read_once(run: Callable[..., Result]) -> None:
    result = run("rank", "-", "--tests", "-", stdin=as_lines(CANDIDATES))
    assert result.exit_code == 2
    assert "stdin can be read once" in result.stderr


def test_limit_reads_the_first_rows(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(as_lines(COMPLETIONS) + b"{\n")
    assert counted(run("score", tmp_path / "a.jsonl", "--limit", "1")) == "scored 1 completions: 1 ok"


def test_a_list_of_completions_gives_a_row_for_each(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(as_lines([{"prompt": "Add.", "responses": [fenced(RIGHT), "no"], "id": 7}]))
    rows = [json.loads(line) for line in run("score", tmp_path / "a.jsonl").stdout.splitlines()]
    assert [(row["id"], row["completion"], row["status"]) for row in rows] == [
        (7, fenced(RIGHT), "ok"),
        (7, "no", "no_block"),
    ]

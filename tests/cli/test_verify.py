"""`codescaler verify` as its users see it."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from codescaler_plugin.cli import app
from codescaler_plugin.execution.executor import Job
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Fault, Verdict
from tests.doubles import Double
from tests.execution.programs import offspring, running, wait_until
from tests.execution.test_remote_sandbox import run_code
from tests.preference.test_verification import COLUMNS, but_for_timings

PROBLEM = {"id": "plus", "problem": "Add one.", "tests": [[1, 2], [5, 6]], "entry_point": "solve"}
OTHER = {"id": "double", "problem": "Double.", "tests": [[1, 2], [5, 10]], "entry_point": "solve"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def write(path: Path, *rows: Any) -> Path:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt") as file:
        file.write("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rollout(body: str, problem: str = "Add one.", **fields: Any) -> dict[str, Any]:
    return {"prompt": problem, "completion": f"```python\ndef solve(n):\n    return {body}\n```", **fields}


ROLLOUTS = (
    rollout("n + 1", step=3),
    rollout("n", step=4),
    rollout("n * 2", "Double."),
    {"prompt": "Double.", "completion": "No."},
)


def test_rollouts_become_verdicts_and_a_summary(tmp_path: Path) -> None:
    output = tmp_path / "v.jsonl"
    result = run(
        write(tmp_path / "r.jsonl", *ROLLOUTS), "--tests", write(tmp_path / "p.jsonl", PROBLEM),
        "--tests", write(tmp_path / "q.jsonl", OTHER), "--output", output, "--workers", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    made = rows(output)
    assert [list(row) for row in made] == [COLUMNS] * 4
    assert [(row["problem_id"], row["passed"], row["step"]) for row in made] == [
        ("plus", True, 3), ("plus", False, 4), ("double", True, None), ("double", False, None)
    ]  # fmt: skip
    said = " ".join(result.stderr.split())
    assert "4 rollouts verified, 0 of them before; 3 programs run" in said
    assert "status ok 3 status no_block 1 passed 2 failed: WrongAnswer 1" in said
    again = run(tmp_path / "r.jsonl", "--tests", tmp_path / "p.jsonl", "--tests", tmp_path / "q.jsonl", "--output", output)  # fmt: skip
    assert again.exit_code == 0, again.output
    assert "4 rollouts verified, 4 of them before; 0 programs run" in " ".join(again.stderr.split())


def test_bad_lines_and_unknown_problems_are_named_skipped_and_told_by_the_exit_code(tmp_path: Path) -> None:
    source = write(tmp_path / "r.jsonl.gz", ROLLOUTS[0], "no json", {"prompt": "Add one."}, ROLLOUTS[2], ROLLOUTS[1])
    problems, output = write(tmp_path / "p.jsonl", PROBLEM), tmp_path / "v.jsonl"
    given = [source, "--tests", problems, "--output", output, "--workers", 1]
    refused = run(*given)
    assert refused.exit_code == 1
    assert "no problem with tests is called or reads 'Double.'" in refused.stderr
    assert run(*given, "--strict").exit_code == 1
    result = run(*given, "--skip-unknown")
    assert result.exit_code == 3, result.output
    assert "skipped r.jsonl.gz, line 2: not JSON" in result.stderr
    assert "skipped r.jsonl.gz, line 3: expected a column 'completion'" in result.stderr
    assert "left out, problem unknown 1" in " ".join(result.stderr.split())
    assert [row["passed"] for row in rows(output)] == [True, False]


def test_a_service_runs_the_programs(tmp_path: Path) -> None:
    double = Double(run_code)
    result = run(
        write(tmp_path / "r.jsonl", *ROLLOUTS), "--tests", write(tmp_path / "p.jsonl", PROBLEM, OTHER),
        "--output", tmp_path / "v.jsonl", "--executor", double.url, "--workers", 2, "--timeout", 10,
    )  # fmt: skip
    double.close()
    assert result.exit_code == 0, result.output
    assert [row["passed"] for row in rows(tmp_path / "v.jsonl")] == [True, False, True, False]
    assert len(double.asked) == 3 + 3 + 3 + 2  # two times three probes, three programs, two of them twice
    local = run(
        tmp_path / "r.jsonl", "--tests", tmp_path / "p.jsonl", "--output", tmp_path / "v.jsonl", "--timeout", 10
    )
    assert local.exit_code == 1
    assert "was made with other executor: 'service' then, None now" in local.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{r}", "--tests", "missing.jsonl"], "missing.jsonl is no file"),
        (["missing.jsonl", "--tests", "{p}"], "missing.jsonl is no file"),
        (["missing.parquet", "--tests", "{p}"], "missing.parquet is no file"),
        (["{r}", "--tests", "{r}"], "no known form of problem has the columns"),
        (["{r}", "--tests", "{p}", "--extraction", "all"], "extraction is 'all': expected one of single"),
        (["{r}", "--tests", "{p}", "--rollout-format", "csv"], "format is 'csv': expected one of auto"),
        (["{r}", "--tests", "{p}", "--package", "nowhere_"], "package 'nowhere_' is not installed here"),
        (["{r}", "--tests", "{p}", "--executor", "localhost:1"], "'localhost:1' is no server's address"),
        (
            ["{r}", "--tests", "{p}", "--executor", "http://h", "--require-isolation"],
            "--require-isolation is about",
        ),
    ],
)
def test_errors_name_the_offender(tmp_path: Path, arguments: list[str], words: str) -> None:
    names = {"r": write(tmp_path / "r.jsonl", *ROLLOUTS), "p": write(tmp_path / "p.jsonl", PROBLEM, OTHER)}
    filled = [argument.format(**names) for argument in arguments]
    result = run(*filled, "--output", tmp_path / "v.jsonl")
    assert result.exit_code == 1, result.output
    assert words in result.stderr


def test_help_fits_eighty_columns_and_names_the_exit_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = run("--help").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "Exit code" in text
    assert "--executor" in text
    assert "…" not in text


def test_once_believes_what_passes(tmp_path: Path) -> None:
    right = rollout("n + 1")
    source, problems = write(tmp_path / "r.jsonl", right), write(tmp_path / "p.jsonl", PROBLEM)
    for option in ((), ("--once",)):
        output = tmp_path / f"v{len(option)}.jsonl"
        assert run(source, "--tests", problems, "--output", output, "--workers", 1, *option).exit_code == 0
        made_with = json.loads(output.with_name(output.name + ".run.json").read_text())
        assert made_with["second run"] is not bool(option)


def many(folder: Path) -> list[str]:
    """A command over 2,000 rollouts, of which 100 hold a program."""
    given = [
        rollout(f"n + {n % 3} + 0 * {n}") if n % 20 == 0 else {"prompt": "Add one.", "completion": f"No. {n}"}
        for n in range(2000)
    ]
    source, problems = write(folder / "r.jsonl", *given), write(folder / "p.jsonl", PROBLEM)
    code = "from codescaler_plugin.cli import app; app()"
    return [
        sys.executable,
        "-c",
        code,
        "verify",
        str(source),
        "--tests",
        str(problems),
        "--workers",
        "1",
        "--output",
    ]


def test_killed_at_ten_random_points_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    command, whole, part = many(tmp_path), tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    before = offspring()
    subprocess.run([*command, whole], check=True, capture_output=True)
    size, draw, killed = whole.stat().st_size, random.Random(0), 0
    for share in sorted(draw.random() for _ in range(10)):
        process = subprocess.Popen([*command, part], stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and (part.stat().st_size if part.exists() else 0) < share * size:
            time.sleep(0.005)
        time.sleep(draw.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 7  # the last may have come too late
    done = subprocess.run([*command, part], capture_output=True, text=True, check=True)
    assert "2,000 rollouts verified" in " ".join(done.stderr.split())
    assert but_for_timings(part) == but_for_timings(whole)
    assert wait_until(lambda: offspring() <= before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_it_leaves_no_process(tmp_path: Path, number: int) -> None:
    marker = f"cs-stop-{os.getpid() % 10_000}"
    endless = f"import ctypes\nctypes.CDLL(None).prctl(15, b'{marker}')\nwhile True:\n    pass\n"
    source = write(tmp_path / "r.jsonl", {"prompt": "Add one.", "completion": f"```python\n{endless}```"})
    command = [sys.executable, "-c", "from codescaler_plugin.cli import app; app()", "verify", str(source)]
    command += ["--tests", str(write(tmp_path / "p.jsonl", PROBLEM)), "--output", str(tmp_path / "v.jsonl")]
    process = subprocess.Popen([*command, "--timeout", "8"], stderr=subprocess.DEVNULL, start_new_session=True)
    assert wait_until(lambda: bool(running(marker)), 30)
    process.send_signal(number)
    assert process.wait(30) in (-signal.SIGTERM, 130)
    assert wait_until(lambda: not running(marker))


def test_a_terminal_sees_rate_and_time_left(tmp_path: Path) -> None:
    import pty

    command = many(tmp_path)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen([*command, tmp_path / "v.jsonl"], stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert process.wait() == 0
    text = seen.decode()
    assert "/2000" in text
    assert "/s" in text
    assert "0:00:" in text


def test_names_that_programs_wrote_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    bodies = ["[/nothing]", "\\x1b]0;T\\x07\\x1b[31mred", "[link=x]click[/link]", "a\\nerror: nothing"]
    codes = [f"def solve(n):\n    raise type({body!r}, (Exception,), {{}})".replace("\\\\", "\\") for body in bodies]
    given = [{"prompt": "Add one.", "completion": f"```python\n{code}\n```"} for code in codes]
    output = tmp_path / "v.jsonl"
    result = run(
        write(tmp_path / "r.jsonl", *given), "--tests", write(tmp_path / "p.jsonl", PROBLEM), "--output", output,
        "--workers", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "failed: [/nothing]" in result.stderr
    assert "failed: [link=x]click[/link]" in result.stderr
    assert not {"\x1b", "\x07"} & set(result.stderr)
    assert not [line for line in result.stderr.splitlines() if line.startswith("error")]


def test_faults_are_counted_apart_with_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(self: Sandbox, jobs: Sequence[Job], **_: Any) -> list[Verdict]:
        fault = Fault.MISSING_PACKAGE
        return [Verdict(False, "MissingPackage: [/numpy]", 0, 2, fault=fault, comparison="exact") for _ in jobs]

    monkeypatch.setattr(Sandbox, "run", judged)
    problems, output = (
        write(tmp_path / "p.jsonl", PROBLEM, {"id": "bare", "problem": "No tests."}),
        tmp_path / "v.jsonl",
    )
    given = [write(tmp_path / "r.jsonl", ROLLOUTS[0]), "--tests", problems, "--output", output, "--workers", 1]
    result = run(*given, "--comparison", "exact", "--once")
    assert result.exit_code == 3, result.output
    said = " ".join(result.stderr.split())
    assert "skipped p.jsonl, line 2:" in said
    assert "no verdict: missing_package 1 compared by exact 1" in said
    assert "such as 'MissingPackage: [/numpy]'" in said
    assert "--package numpy" in said
    assert "failed:" not in said
    assert rows(output)[0]["fault"] == "missing_package"
    strict = run(*given, "--strict", "--comparison", "exact", "--once")
    assert (strict.exit_code, "p.jsonl, line 2" in strict.stderr) == (1, True)
    other = run(*given, "--once")
    assert "was made with other problems" in " ".join(other.stderr.split())
    wrong = run(*given, "--comparison", "loose")
    assert (wrong.exit_code, "comparison is 'loose'" in wrong.stderr) == (1, True)

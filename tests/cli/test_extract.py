import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from codescaler_plugin.cli import app
from tests.samples import fenced

GOOD = fenced("def solve(n):\n    return n")


def extract(*arguments: str, stdin: str) -> Result:
    return CliRunner().invoke(app, ["extract", *arguments], input=stdin)


def lines(*completions: object) -> str:
    return "".join(json.dumps({"completion": completion}) + "\n" for completion in completions)


def test_code_and_status_are_added_and_other_fields_stay() -> None:
    result = extract(stdin='{"id": 7, "completion": ' + json.dumps(GOOD) + "}\n" + lines("I cannot."))
    assert result.exit_code == 0, result.output
    good, useless = [json.loads(line) for line in result.stdout.splitlines()]
    code = "def solve(n):\n    return n\n"
    assert good == {"id": 7, "completion": GOOD, "code": code, "language": "python", "status": "ok"} | {
        "explanation": "The block at line 3 of the completion is a python program."
    }
    assert useless == {"completion": "I cannot.", "code": "", "language": "python", "status": "no_block"} | {
        "explanation": "The completion has no fenced block."
    }


def test_the_histogram_counts_every_status_on_stderr() -> None:
    result = extract(stdin=lines(GOOD, GOOD, "no", "no", "no"))
    rows = [line.split()[:3] for line in result.stderr.splitlines() if "%" in line]
    assert rows == [["no_block", "3", "60.0%"], ["ok", "2", "40.0%"]]


def test_of_no_completions_there_is_no_table() -> None:
    result = extract(stdin="")
    assert (result.exit_code, result.stdout) == (0, "")
    assert re.fullmatch(r"read 0 completions in [0-9.]+ s\n", result.stderr)


def test_the_sentence_counts_the_lines_of_the_completion_after_what_its_prompt_opened() -> None:
    row = {"prompt": "<|im_start|>assistant\n<think>\n", "completion": f"So.\n</think>\n{GOOD}"}
    result = extract(stdin=json.dumps(row))
    assert json.loads(result.stdout)["explanation"] == "The block at line 5 of the completion is a python program."


def test_policy_and_language_are_used() -> None:
    both = "```c++\nint x;\n```\n```text\n1\n```\n"
    result = extract("--extraction", "last", "--language", "c++", stdin=lines(both))
    assert json.loads(result.stdout)["code"] == "int x;\n"


def test_settings_of_reasoning_and_fences_are_used() -> None:
    result = extract("--reasoning-marks", "<plan> </plan>", stdin=lines(f"<plan>{GOOD}</plan>{GOOD}"))
    assert json.loads(result.stdout)["status"] == "ok"
    result = extract("--thinking-prefilled", stdin=lines(GOOD, f"{GOOD}</think>\n{GOOD}"))
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["no_block", "ok"]
    result = extract("--fence-prefilled", stdin=lines("x = 1\n```"))
    assert json.loads(result.stdout)["code"] == "x = 1\n"
    result = extract("--reasoning-marks", "<plan>", stdin=lines(GOOD))
    assert (result.exit_code, "opening and closing marks in turn" in result.stderr) == (1, True)


def test_the_prompt_beside_a_completion_is_read() -> None:
    prompt = "<|im_start|>user\nRead n<|im_end|>\n<|im_start|>assistant\n<think>\n"
    for name in ("prompt", "problem"):
        rows = [{name: prompt, "completion": GOOD}, {name: 7, "completion": GOOD}]
        result = extract(stdin="".join(json.dumps(row) + "\n" for row in rows))
        assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["no_block", "ok"]


def test_parts_and_null_are_read() -> None:
    parts = [{"role": "assistant", "content": [{"type": "text", "text": GOOD}]}]
    result = extract(stdin=lines(parts, None))
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["ok", "no_block"]


def test_message_lists_are_read() -> None:
    result = extract(stdin=lines([{"role": "assistant", "content": GOOD}]))
    assert json.loads(result.stdout)["status"] == "ok"


def test_text_prints_the_code_alone() -> None:
    result = extract("--text", stdin=GOOD)
    assert (result.exit_code, result.stdout) == (0, "def solve(n):\n    return n\n")


def test_text_without_code_is_an_error_that_says_why() -> None:
    result = extract("--text", stdin="I cannot.")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "no_block: The completion has no fenced block." in result.stderr


def test_text_that_is_not_utf_8_is_an_error_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(fenced("x = 'é'").encode("latin-1"))
    result = extract("--text", str(tmp_path / "latin.txt"), stdin="")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "latin.txt is not UTF-8 at character 28" in result.stderr.replace("\n", "")


def test_a_bad_line_is_named_and_skipped_or_fatal() -> None:
    stdin = lines(GOOD) + '{"prompt": "x"}\n' + lines("no")
    result = extract(stdin=stdin)
    assert result.exit_code == 3
    assert "line 2: expected a column 'completion' or" in result.stderr
    assert len(result.stdout.splitlines()) == 2
    assert extract("--strict", stdin=stdin).exit_code == 1


@pytest.mark.parametrize("arguments", [("--extraction", "best"), ("--language", "cobol")])
def test_a_wrong_setting_is_an_error_even_without_input(arguments: tuple[str, str]) -> None:
    result = extract(*arguments, stdin="")
    assert result.exit_code == 1
    assert arguments[1] in result.stderr


def test_output_goes_to_a_file(tmp_path: Path) -> None:
    result = extract("--output", str(tmp_path / "out.jsonl"), stdin=lines(GOOD))
    assert result.stdout == ""
    assert json.loads((tmp_path / "out.jsonl").read_text())["status"] == "ok"


def test_text_of_a_missing_file_is_one_line() -> None:
    result = extract("--text", "none.txt", stdin="")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "none.txt is no file" in result.stderr


def test_a_message_about_a_skipped_row_names_the_option() -> None:
    result = extract(stdin=lines(GOOD) + '{"reply": "x"}\n')
    assert "--columns completion=NAME" in result.stderr


def test_messages_and_gaps_of_csv_are_those_of_json(tmp_path: Path) -> None:
    messages = json.dumps([{"role": "assistant", "content": GOOD}])
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["completion", "response", "completions"], [messages, "", ""], ["", GOOD, ""]])
    result = extract(str(tmp_path / "rows.csv"), stdin="")
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["ok", "ok"]


@pytest.mark.parametrize(("closed", "said"), [("<&-", "stdin is closed"), (">&-", "stdout is closed: give --output")])
def test_a_closed_stream_is_named(closed: str, said: str) -> None:
    script = f"{shlex.quote(sys.executable)} -m codescaler_plugin extract - {closed}"
    done = subprocess.run(["bash", "-c", script], input=lines(GOOD), text=True, capture_output=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) in {(1, False), (2, False)}
    assert said in done.stderr

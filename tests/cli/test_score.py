import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from codescaler_plugin import __version__, load_scorer
from codescaler_plugin.cli import app
from codescaler_plugin.cli.rows import CHUNK
from tests.samples import fenced

GOOD = {"problem": "Write solve(n).", "completion": fenced("def solve(n):\n    return n")}
USELESS = {"problem": "Write solve(n).", "completion": "I cannot."}


def score(folder: Path | str, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["score", "--model", str(folder), *arguments], input=stdin)


def lines(*rows: Any) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "completions.jsonl"
    path.write_text(lines({**GOOD, "id": 7}, USELESS))
    return path


def test_file_is_judged_line_by_line_and_other_fields_stay(tiny_rm_dir: Path, source: Path) -> None:
    result = score(tiny_rm_dir, str(source))
    assert result.exit_code == 0, result.output
    good, useless = read(result.stdout)
    (logit,) = load_scorer(str(tiny_rm_dir)).score([(GOOD["problem"], "def solve(n):\n    return n\n")])
    assert good == {
        **GOOD,
        "id": 7,
        "reward": good["reward"],
        "score": pytest.approx(logit, abs=1e-5),
        "status": "ok",
        "code": "def solve(n):\n    return n\n",
        "explanation": "The block at line 3 of the completion is a python program.",
    }
    assert good["reward"] > 0
    assert useless == {
        **USELESS,
        "reward": 0.0,
        "score": None,
        "status": "no_block",
        "code": "",
        "explanation": "The completion has no fenced block.",
    }


@pytest.mark.parametrize("arguments", [(), ("-",)], ids=["default", "dash"])
def test_stdin_is_judged(tiny_rm_dir: Path, arguments: tuple[str, ...]) -> None:
    result = score(tiny_rm_dir, *arguments, stdin=lines(USELESS))
    assert result.exit_code == 0, result.output
    assert [row["status"] for row in read(result.stdout)] == ["no_block"]


def test_message_lists_are_judged(tiny_rm_dir: Path) -> None:
    row = {
        "problem": [{"role": "user", "content": GOOD["problem"]}],
        "completion": [{"role": "assistant", "content": GOOD["completion"]}],
    }
    result = score(tiny_rm_dir, stdin=lines(row, GOOD))
    as_messages, as_strings = read(result.stdout)
    assert as_messages["score"] == pytest.approx(as_strings["score"], abs=1e-5)


def test_output_goes_to_the_file_and_not_to_stdout(tiny_rm_dir: Path, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "judged.jsonl"
    result = score(tiny_rm_dir, str(source), "--output", str(target))
    assert (result.exit_code, result.stdout) == (0, "")
    assert [row["status"] for row in read(target.read_text(encoding="utf-8"))] == ["ok", "no_block"]


def test_text_beyond_ascii_survives(tiny_rm_dir: Path) -> None:
    row = {"problem": "写 ü →", "completion": "🙂"}
    result = score(tiny_rm_dir, stdin=lines(row))
    assert read(result.stdout)[0].items() >= row.items()


BAD = {
    "not-json": ("{", "not JSON"),
    "no-object": ("[1]", "expected an object"),
    "no-completion": ({"problem": "p"}, "'completion'"),
    "problem-of-wrong-type": ({"problem": 1, "completion": "c"}, "int"),
    "completion-of-wrong-type": ({"problem": "p", "completion": 3}, "int"),
    "system-turn-only": ({"problem": [{"role": "system", "content": "S"}], "completion": "c"}, "no user message"),
    "deep-nesting": ("[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_line_is_reported_with_its_number_and_skipped(tiny_rm_dir: Path, bad: Any, reason: str) -> None:
    result = score(tiny_rm_dir, stdin=lines(USELESS, bad, USELESS))
    assert result.exit_code == 3
    assert len(read(result.stdout)) == 2
    assert "line 2:" in result.stderr
    assert reason in result.stderr


def test_line_with_a_lone_surrogate_is_judged(tiny_rm_dir: Path) -> None:
    result = score(tiny_rm_dir, stdin=lines({"problem": "p", "completion": "\ud800"}, USELESS))
    assert result.exit_code == 0, result.exception
    assert [row["completion"] for row in read(result.stdout)] == ["\ud800", "I cannot."]


def test_line_that_is_no_utf8_is_reported_with_its_number_and_skipped(tiny_rm_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "latin.jsonl"
    source.write_bytes(lines(USELESS).encode() + b'{"problem": "\xfc", "completion": "c"}\n' + lines(USELESS).encode())
    result = score(tiny_rm_dir, str(source))
    assert (result.exit_code, len(read(result.stdout))) == (3, 2)
    assert "line 2: not UTF-8" in result.stderr


def test_strict_stops_at_the_first_bad_line(tiny_rm_dir: Path) -> None:
    result = score(tiny_rm_dir, "--strict", stdin=lines(USELESS, "{", "["))
    assert result.exit_code == 1
    assert "line 2" in result.stderr
    assert "line 3" not in result.stderr


def test_strict_is_content_with_good_lines(tiny_rm_dir: Path, source: Path) -> None:
    assert score(tiny_rm_dir, str(source), "--strict").exit_code == 0


def test_sample_without_a_score_is_exit_code_3(tiny_rm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODESCALER_MAX_LENGTH", "5")
    result = score(tiny_rm_dir, stdin=lines(GOOD))
    assert result.exit_code == 3
    assert [row["reward"] for row in read(result.stdout)] == [None]


def test_missing_model_is_one_line_on_stderr(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    result = score(folder, stdin=lines(GOOD))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert str(folder) in result.stderr
    assert "builtin" in result.stderr


def test_setting_that_does_not_exist_is_one_line_on_stderr(tiny_rm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODESCALER_SHAPE", "raw")
    result = score(tiny_rm_dir, stdin=lines(GOOD))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "CODESCALER_SHAPING" in result.stderr


def test_model_may_come_from_the_environment(tiny_rm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODESCALER_MODEL", str(tiny_rm_dir))
    result = CliRunner().invoke(app, ["score"], input=lines(GOOD))
    assert result.exit_code == 0, result.output


def test_order_is_kept_over_several_chunks(tiny_rm_dir: Path) -> None:
    rows = [{**(GOOD if number % 20 == 0 else USELESS), "number": number} for number in range(2 * CHUNK + 7)]
    result = score(tiny_rm_dir, stdin=lines(*rows))
    assert [row["number"] for row in read(result.stdout)] == list(range(2 * CHUNK + 7))


def test_numbers_of_bad_lines_count_on_over_chunks(tiny_rm_dir: Path) -> None:
    result = score(tiny_rm_dir, stdin=lines(*[USELESS] * (CHUNK + 5), "{"))
    assert f"line {CHUNK + 6}:" in result.stderr


def test_earlier_chunks_are_written_before_a_strict_stop(tiny_rm_dir: Path) -> None:
    result = score(tiny_rm_dir, "--strict", stdin=lines(*[USELESS] * CHUNK, "{"))
    assert result.exit_code == 1
    assert len(read(result.stdout)) == CHUNK


def test_empty_input_is_no_error(tiny_rm_dir: Path) -> None:
    result = score(tiny_rm_dir, stdin="")
    assert (result.exit_code, result.stdout) == (0, "")


def test_missing_file_is_a_usage_error(tiny_rm_dir: Path, tmp_path: Path) -> None:
    assert score(tiny_rm_dir, str(tmp_path / "missing.jsonl")).exit_code == 2


def test_output_that_cannot_be_opened_is_an_error_without_a_traceback(tiny_rm_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "no-such-folder" / "judged.jsonl"
    result = score(tiny_rm_dir, "--output", str(target), stdin=lines(USELESS))
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code in (1, 2)
    assert "no-such-folder" in result.stderr


def test_version_is_printed() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"codescaler-plugin {__version__}\n")

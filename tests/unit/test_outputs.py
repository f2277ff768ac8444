"""Output files: never an input, in place only when whole, refused in one line before the work."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from codescaler_plugin import ConfigError
from codescaler_plugin.cli import app
from codescaler_plugin.data.outputs import check_folder, check_output, write_output
from tests.tiny import fenced

PROBLEM = {"problem": "Return n.", "problem_id": "p", "tests": [{"input": "1", "output": "1"}]}
ANSWER = {"problem": "Return n.", "completion": fenced("print(input())"), "problem_id": "p"}
CANDIDATES = {"problem": "Return n.", "completions": [fenced("x = 1"), fenced("x = 2")], "passed": [True, False]}
PAIR = {"problem": "Return n.", "chosen": "x = 1", "rejected": "x = 2"}
VERDICTS = [{**ANSWER, "code": f"x = {n}", "status": "ok", "passed": bool(n)} for n in (0, 1)]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rows = {
        "answers": [ANSWER],
        "candidates": [CANDIDATES] * 4,
        "problems": [PROBLEM],
        "pairs": [PAIR],
        "verdicts": VERDICTS,
    }
    return {name: write(tmp_path / f"{name}.jsonl", *given) for name, given in rows.items()}


OVERWRITING = [
    "score {answers} --model builtin --output {answers}",
    "extract {answers} --output {answers}",
    "extract {folder}/kept.jsonl.part --output {folder}/kept.jsonl",
    "extract {answers} --text --output {answers}",
    "select {candidates} --model builtin --output {candidates}",
    "select {candidates} --model builtin --tests {problems} --output {problems}",
    "select {candidates} --model builtin --calibrate {candidates}",
    "verify {answers} --problems {problems} --output {answers}",
    "verify {answers} --problems {problems} --output {problems}",
    "mine {verdicts} --output {verdicts}",
    "mine {verdicts} --output {folder}/new.jsonl --held-out 0.5 --held-out-output {verdicts}",
    "mine {verdicts} --output {folder}/new.jsonl --decontaminate {problems} --held-out 0.5 --held-out-output {problems}",
    "augment {pairs} --output {pairs}",
    "augment {pairs} --problems {problems} --output {problems}",
    "evaluate pairs {folder}/pairs.own.jsonl --model builtin --output {folder} --name own",
    "evaluate robustness {folder}/robustness.own.jsonl --model builtin --output {folder} --name own",
    "evaluate candidates {folder}/candidates.own.jsonl --model builtin --output {folder} --name own",
    "evaluate generation {folder}/generations.jsonl --policy builtin --output {folder}",
]


@pytest.mark.parametrize("command", OVERWRITING)
def test_no_command_writes_over_what_it_reads(command: str, files: dict[str, Path], tmp_path: Path) -> None:
    for name, source in (
        ("pairs.own", "pairs"),
        ("robustness.own", "pairs"),
        ("candidates.own", "verdicts"),
        ("generations", "problems"),
        ("kept.jsonl.part", "answers"),
    ):
        (tmp_path / (name if name.endswith(".part") else f"{name}.jsonl")).write_text(
            files[source].read_text().rstrip("\n")
        )  # a last line that looks torn
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = run(*command.format(**files, folder=tmp_path).split())
    assert done.exit_code == 1, done.output
    assert "is read and would be written over" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("way", ["same", "dotted", "link", "hard link"])
def test_an_input_is_known_by_any_of_its_names(files: dict[str, Path], tmp_path: Path, way: str) -> None:
    source = files["answers"]
    other = {"same": source, "dotted": tmp_path / "." / ".." / tmp_path.name / source.name}.get(
        way, tmp_path / "other"
    )
    if way == "link":
        other.symlink_to(source)
    elif way == "hard link":
        other.hardlink_to(source)
    before = source.read_text()
    done = run("extract", source, "--output", other)
    assert (done.exit_code, source.read_text()) == (1, before)


def test_a_file_in_a_folder_that_is_read_is_an_input(files: dict[str, Path], tmp_path: Path) -> None:
    done = run("verify", tmp_path, "--problems", files["problems"], "--output", tmp_path / "new.jsonl")
    assert done.exit_code == 1
    assert "would be written over" in done.stderr


def test_stdin_and_stdout_of_the_same_file_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    import subprocess
    import sys

    source = files["answers"]
    before = source.read_text()
    command = [sys.executable, "-m", "codescaler_plugin", "extract"]
    with source.open("rb") as given:
        done = subprocess.run([*command, "--output", source], stdin=given, capture_output=True, text=True)
    assert (done.returncode, source.read_text()) == (1, before)
    with source.open("ab") as out:
        done = subprocess.run([*command, source], stdout=out, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, source.read_text()) == (1, before)
    assert "stdout is redirected into the file that is read" in done.stderr


def test_the_output_is_as_it_was_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before")
    path.chmod(0o640)
    with write_output(path) as file:
        file.write("after")
        file.flush()
        assert path.read_text() == "before"
        assert (tmp_path / "out.jsonl.part").read_text() == "after"
    assert path.read_text() == "after"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("keep", [False, True])
def test_what_fails_leaves_the_old_output_and_says_where_the_rest_is(tmp_path: Path, keep: bool) -> None:
    path, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    path.write_text("before")

    def fail() -> None:
        with write_output(path, keep_part=keep) as file:
            file.write("some")
            file.flush()
            raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        fail()
    assert path.read_text() == "before"
    assert part.exists() is keep
    assert getattr(caught.value, "__notes__", []) == ([f"What was written so far is in {part}"] if keep else [])
    with write_output(path) as file:
        file.write("after")
    assert path.read_text() == "after"
    assert not part.exists()


def test_a_strict_stop_names_what_was_written(files: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "many.jsonl"
    source.write_text((json.dumps(ANSWER) + "\n") * 64 + "no json\n")
    done = run("extract", source, "--strict", "--output", tmp_path / "out.jsonl")
    assert done.exit_code == 1
    assert f"What was written so far is in {tmp_path / 'out.jsonl.part'}" in done.stderr
    assert len((tmp_path / "out.jsonl.part").read_text().splitlines()) == 64
    assert not (tmp_path / "out.jsonl").exists()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with write_output(path) as file:
        file.write("first")
        with pytest.raises(ConfigError, match="another process"), write_output(path):
            pass
    assert path.read_text() == "first"


def test_a_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("before")
    link.symlink_to(target)
    with write_output(link) as file:
        file.write("after")
    assert link.is_symlink()
    assert target.read_text() == "after"


def test_a_full_disk_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No space left"), write_output(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in ((tmp_path, "a folder"), (tmp_path / "pipe", "no regular file"), (Path("/dev/full"), "regular")):
        with pytest.raises(ConfigError, match=said):
            check_output(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        check_folder(tmp_path / "file")


UNWRITABLE = [
    "score {answers} --model /nowhere --output /proc/no/out.jsonl",
    "select {candidates} --model /nowhere --calibrate /proc/no/out.json",
    "verify {answers} --problems {problems} --output /proc/no/out.jsonl",
    "mine {verdicts} --output /proc/no/out.jsonl",
    "mine {verdicts} --output {folder}/out.jsonl --card /proc/no",
    "augment {pairs} --output {folder}/out.jsonl --card /proc/no",
    "evaluate pairs {pairs} --model /nowhere --output /proc/no",
    "evaluate robustness {pairs} --model /nowhere --output /proc/no",
    "evaluate candidates {verdicts} --model /nowhere --output /proc/no",
    "evaluate calibration {pairs} --model /nowhere --output /proc/no",
    "evaluate rm-bench {pairs} --model /nowhere --output /proc/no",
    "evaluate generation {problems} --policy /nowhere --output /proc/no",
    "report {folder} --output /proc/no/report.html",
    "quickstart --output /proc/no",
]


@pytest.mark.parametrize("command", UNWRITABLE)
def test_an_output_that_cannot_be_written_is_one_line_before_any_work(
    command: str, files: dict[str, Path], tmp_path: Path
) -> None:
    done = run(*command.format(**files, folder=tmp_path).split())
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit)
    assert "/proc/no" in done.stderr
    assert "/nowhere" not in done.stderr  # the model was not asked for
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_page_that_is_not_ours_is_not_written_over(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    page = tmp_path / "own" / "README.md"
    page.write_text("my project")
    done = run("mine", files["verdicts"], "--output", tmp_path / "o.jsonl", "--card", tmp_path / "own")
    assert done.exit_code == 1
    assert "README.md" in done.stderr
    assert page.read_text() == "my project"

"""Output files: never an input, in place only when whole, refused in one line before the work."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from codescaler_plugin import ConfigError
from codescaler_plugin.cli import app
from codescaler_plugin.data import outputs
from codescaler_plugin.data.outputs import (
    check_folder,
    check_output,
    locked_folder,
    open_resumable,
    whole_lines,
    write_output,
)
from tests.cli.commands import commands, options
from tests.samples import fenced

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
    rows: dict[str, list[Any]] = {
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
    "extract {answers} --text --output {answers}",
    "rank {candidates} --model builtin --output {candidates}",
    "rank {candidates} --model builtin --tests {problems} --output {problems}",
    "calibrate {candidates} --model builtin --output {candidates}",
    "verify {answers} --tests {problems} --output {answers}",
    "verify {answers} --tests {problems} --output {problems}",
    "mine {verdicts} --output {verdicts}",
    "mine {verdicts} --output {folder}/new.jsonl --held-out 0.5 --held-out-output {verdicts}",
    "mine {verdicts} --output {folder}/new.jsonl --decontaminate {problems} --held-out 0.5 --held-out-output {problems}",
    "augment {pairs} --output {pairs}",
    "augment {pairs} --tests {problems} --output {problems}",
    "evaluate pairs {folder}/pairs.own.jsonl --model builtin --output {folder} --name own",
    "evaluate rm-bench {folder}/rm-bench.own.jsonl --model builtin --output {folder} --name own",
    "evaluate robustness {folder}/robustness.own.jsonl --model builtin --output {folder} --name own",
    "evaluate candidates {folder}/candidates.own.jsonl --model builtin --output {folder} --name own",
    "evaluate calibration {folder}/pairs.own.jsonl --model builtin --output {folder} --name own",
    "evaluate calibration {folder}/candidates.own.jsonl --model builtin --output {folder} --name own",
    "evaluate pairs {pairs} --model builtin --output {folder} --name own --human-bugs {folder}/pairs.own.jsonl",
    "rank {candidates} --model builtin --calibration {verdicts} --output {verdicts}",
    "sample {problems} --model builtin --server http://x --output {problems}",
    "mine {folder}/card/data_card.json --output {folder}/new.jsonl --card {folder}/card",
    "evaluate generation {folder}/generations.jsonl --policy-model builtin --output {folder}",
    "report {verdicts} --output {verdicts}",
]


@pytest.mark.parametrize("command", OVERWRITING)
def test_no_command_writes_over_what_it_reads(command: str, files: dict[str, Path], tmp_path: Path) -> None:
    for name, source in (
        ("pairs.own", "pairs"),
        ("robustness.own", "pairs"),
        ("rm-bench.own", "pairs"),
        ("candidates.own", "verdicts"),
        ("generations", "problems"),
        ("calibration.own", "pairs"),
    ):
        (tmp_path / f"{name}.jsonl").write_text(files[source].read_text().rstrip("\n"))  # a last line that looks torn
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "data_card.json").write_text(files["verdicts"].read_text())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = run(*command.format(**files, folder=tmp_path).split())
    assert done.exit_code == 1, done.output
    assert "is read and would be written over" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


WRITES_NO_INPUT = {"quickstart"}  # it reads no file of rows


def writing() -> set[str]:
    """The commands with --output."""
    return {name for name, command in commands().items() if "--output" in options(command)}


def test_every_command_with_an_output_is_tried() -> None:
    for tried in (OVERWRITING, RENAMED):
        assert {
            name for name in writing() if any(line.startswith(f"{name} ") for line in tried)
        } | WRITES_NO_INPUT == (writing())
    assert {name for name in writing() if any(line.startswith(f"{name} ") for line in UNWRITABLE)} == writing()


RENAMED = {  # the file that is read, and the name of the same file that would be written
    "report {source} --output {other}": ("verdicts", "other.jsonl"),
    "score {source} --model builtin --output {other}": ("answers", "other.jsonl"),
    "extract {source} --output {other}": ("answers", "other.jsonl"),
    "rank {source} --model builtin --output {other}": ("candidates", "other.jsonl"),
    "calibrate {source} --model builtin --output {other}": ("candidates", "other.jsonl"),
    "sample {source} --model builtin --server http://x --output {other}": ("problems", "other.jsonl"),
    "verify {source} --tests {problems} --output {other}": ("answers", "other.jsonl"),
    "mine {source} --output {other}": ("verdicts", "other.jsonl"),
    "augment {source} --output {other}": ("pairs", "other.jsonl"),
    "evaluate pairs {source} --model builtin --output {folder} --name own": ("pairs", "pairs.own.jsonl"),
    "evaluate rm-bench {source} --model builtin --output {folder} --name own": ("pairs", "rm-bench.own.jsonl"),
    "evaluate candidates {source} --model builtin --output {folder} --name own": ("verdicts", "candidates.own.jsonl"),
    "evaluate calibration {source} --model builtin --output {folder} --name own": ("pairs", "pairs.own.jsonl"),
    "evaluate robustness {source} --model builtin --output {folder} --name own": ("pairs", "robustness.own.jsonl"),
    "evaluate generation {source} --policy-model builtin --output {folder}": ("problems", "generations.jsonl"),
}


@pytest.mark.parametrize("alias", ["same", "dotted", "link", "hard link", "stdin"])
@pytest.mark.parametrize("command", RENAMED)
def test_an_input_is_known_by_any_of_its_names(
    command: str, files: dict[str, Path], tmp_path: Path, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, target = RENAMED[command]
    folder = tmp_path / "folder"
    folder.mkdir()
    source, other = folder / "source.jsonl", folder / target
    source.write_bytes(files[name].read_bytes())
    if alias in ("same", "stdin"):
        source = source.rename(other)
    elif alias == "dotted":
        source = source.rename(other).parent / ".." / "folder" / "." / target
    elif alias == "link":
        other.symlink_to(source)
    else:
        other.hardlink_to(source)
    before = source.read_text()
    words = command.format(source="-" if alias == "stdin" else source, other=other, folder=folder, **files).split()
    if alias == "stdin":
        with source.open("rb") as stdin, monkeypatch.context() as patched:
            patched.setattr("codescaler_plugin.cli.options.redirected", lambda: str(Path(stdin.name).resolve()))
            done = run(*words)
    else:
        done = run(*words)
    assert (done.exit_code, source.read_text()) == (1, before), done.output
    assert "is read and would be written over" in done.stderr


def test_a_file_in_a_folder_that_is_read_is_an_input(files: dict[str, Path], tmp_path: Path) -> None:
    done = run("verify", tmp_path, "--tests", files["problems"], "--output", tmp_path / "new.jsonl")
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


def part_of(path: Path) -> Path:
    [part] = path.parent.glob(f"{path.name}.*.part")
    return part


def test_the_output_is_as_it_was_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before")
    path.chmod(0o640)
    with write_output(path) as file:
        file.write("after")
        file.flush()
        assert path.read_text() == "before"
        assert part_of(path).read_text() == "after"
    assert path.read_text() == "after"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    "error", [KeyError("x"), OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_what_fails_leaves_the_old_output_and_says_where_the_rest_is(
    tmp_path: Path, keep: bool, error: BaseException
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before")

    def fail() -> None:
        with write_output(path, keep_part=keep) as file:
            file.write("some")
            raise type(error)(*error.args)

    with pytest.raises(ConfigError if isinstance(error, OSError) else type(error)) as caught:
        fail()
    assert path.read_text() == "before"
    parts = list(tmp_path.glob("*.part"))
    assert [part.read_text() for part in parts] == ["some"] * keep
    assert getattr(caught.value, "__notes__", []) == [f"What was written so far is in {part}" for part in parts]


def test_no_other_file_is_touched_and_the_last_of_two_writers_wins_whole(tmp_path: Path) -> None:
    path, other = tmp_path / "out", tmp_path / "out.part"
    other.write_text("mine")
    with write_output(path) as first:
        first.write("first")
        with write_output(path) as second:
            second.write("second, and longer")
        assert path.read_text() == "second, and longer"
    assert path.read_text() == "first"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "out.part"]
    assert other.read_text() == "mine"


def test_a_strict_stop_names_what_was_written(files: dict[str, Path], tmp_path: Path) -> None:
    source, output = tmp_path / "many.jsonl", tmp_path / "out.jsonl"
    source.write_text((json.dumps(ANSWER) + "\n") * 64 + "no json\n")
    done = run("extract", source, "--strict", "--output", output)
    assert done.exit_code == 1
    kept = part_of(output)
    assert f"What was written so far is in {kept}" in done.stderr
    assert run("score", source, "--model", "/nowhere/model", "--output", output).exit_code == 1
    assert len(kept.read_text().splitlines()) == 64  # a later run that fails leaves it
    assert not output.exists()


def test_a_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("before")
    link.symlink_to(target)
    with write_output(link) as file:
        file.write("after")
    assert link.is_symlink()
    assert target.read_text() == "after"


def test_a_calibration_that_fails_leaves_the_earlier_one(files: dict[str, Path], tmp_path: Path) -> None:
    old = write(tmp_path / "old.jsonl", "previous")
    for costs in ((), ("--costs", "1,1,1")):
        done = run("calibrate", files["verdicts"], "--model", "builtin", *costs, "--output", old)
        assert done.exit_code == 1
        assert "a plan wants two at least" in done.stderr
        assert old.read_text() == '"previous"\n'


def test_a_file_that_no_earlier_run_wrote_is_not_cut_off(files: dict[str, Path], tmp_path: Path) -> None:
    """One line without an end, such as a JSON array, looks like a line that a kill has torn."""
    for folder, name, command in (
        ("e", "pairs.pairs.jsonl", ("evaluate", "pairs", files["pairs"], "--model", "builtin", "--output")),
        (
            "g",
            "generations.jsonl",
            ("evaluate", "generation", files["problems"], "--policy-model", "builtin", "--output"),
        ),
    ):
        (tmp_path / folder).mkdir()
        own = tmp_path / folder / name
        own.write_text('[{"my": "data"}]')
        done = run(*command, tmp_path / folder)
        assert done.exit_code == 1, done.output
        assert "give another" in done.stderr
        assert own.read_text() == '[{"my": "data"}]'


def test_held_out_pairs_of_an_earlier_run_are_not_left_beside_new_ones(tmp_path: Path) -> None:
    rows = [{**ANSWER, "problem": f"P{n}", "problem_id": str(n), "code": f"x = {n}{p}", "status": "ok", "passed": bool(p)} for n in range(6) for p in (0, 1)]  # fmt: skip
    source, output = write(tmp_path / "v.jsonl", *rows), tmp_path / "pairs.jsonl"
    assert run("mine", source, "--output", output, "--format", "trl", "--held-out", "0.4").exit_code == 0
    done = run("mine", source, "--output", output, "--format", "trl")
    assert done.exit_code == 1
    assert "no longer fits: delete it" in done.stderr


def test_a_folder_that_may_not_be_searched_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(self: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_dir", refuse)
    for command in (
        ("mine", "x.jsonl", "--output", tmp_path / "o.jsonl"),
        ("extract", "-", "--output", tmp_path / "q"),
    ):
        done = run(*command)
        assert (done.exit_code, type(done.exception)) == (1, SystemExit)
        assert "Permission denied" in done.stderr


def test_a_full_disk_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No space left"), write_output(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in ((tmp_path, "a folder"), (tmp_path / "pipe", "no regular file"), (Path("/dev/full"), "regular")):
        with pytest.raises(ConfigError, match=said):
            check_output(path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError, match="cannot write"):
        check_output(tmp_path / "loop")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        check_folder(tmp_path / "file")


UNWRITABLE = [
    "score {answers} --model /nowhere --output /proc/no/out.jsonl",
    "extract {answers} --output /proc/no/out.jsonl",
    "rank {candidates} --model /nowhere --output /proc/no/out.jsonl",
    "sample {problems} --model /nowhere --server http://x --output /proc/no/out.jsonl",
    "calibrate {candidates} --model /nowhere --output /proc/no/out.json",
    "verify {answers} --tests {problems} --output /proc/no/out.jsonl",
    "mine {verdicts} --output /proc/no/out.jsonl",
    "mine {verdicts} --output {folder}/out.jsonl --card /proc/no",
    "augment {pairs} --output {folder}/out.jsonl --card /proc/no",
    "evaluate pairs {pairs} --model /nowhere --output /proc/no",
    "evaluate robustness {pairs} --model /nowhere --output /proc/no",
    "evaluate candidates {verdicts} --model /nowhere --output /proc/no",
    "evaluate calibration {pairs} --model /nowhere --output /proc/no",
    "evaluate rm-bench {pairs} --model /nowhere --output /proc/no",
    "evaluate generation {problems} --policy-model /nowhere --output /proc/no",
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
    (tmp_path / "own" / "data_card.json").write_text("{}")
    done = run("mine", files["verdicts"], "--output", tmp_path / "o.jsonl", "--card", tmp_path / "own")
    assert done.exit_code == 1
    assert "README.md" in done.stderr
    assert page.read_text() == "my project"
    for name in ("notes.html", "notes.md"):
        (tmp_path / "own" / name).write_text("my notes")
    (tmp_path / "own" / "pairs.x.summary.json").write_text("{}")
    done = run("report", tmp_path / "own", "--output", tmp_path / "own" / "notes.html")
    assert (done.exit_code, "notes.html is not one of ours" in done.stderr) == (1, True)
    card = ("mine", files["verdicts"], "--output", tmp_path / "o.jsonl", "--card", tmp_path / "card")
    assert [run(*card).exit_code, run(*card).exit_code] == [0, 0]  # our own may be written anew


def test_a_file_to_go_on_with_is_regular_locked_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/full"), Path("/dev/null")):
        with pytest.raises(ConfigError, match="it is no regular file"), open_resumable(path):
            pass
    with pytest.raises(ConfigError, match="cannot write"), open_resumable(tmp_path):
        pass
    path = tmp_path / "rows"
    with open_resumable(path) as file:
        file.write(b"one\ntwo\ntorn")
        file.flush()
        assert list(whole_lines(file, path)) == [b"one\n", b"two\n"]
        with pytest.raises(ConfigError, match="is being written by another process"), open_resumable(path):
            pass
        monkeypatch.setattr(outputs, "MAX_LINE", 3)
        with pytest.raises(ConfigError, match=r"line 1 of .* is longer than"):
            list(whole_lines(file, path))
    with open_resumable(path):
        pass


def test_rows_of_an_earlier_run_are_claimed_and_a_torn_one_is_cut_off(tmp_path: Path) -> None:
    path, rows = tmp_path / "rows", []
    path.write_bytes(b'{"n": 1}\n{"n": 2}\n{"n": 3')

    def claim(row: Any) -> str:
        rows.append(row["n"])
        return "" if row["n"] < 9 else "is another's"

    with open_resumable(path, claim) as file:
        assert (rows, file.tell()) == ([1, 2], 18)
        file.write(b'{"n": 9}\n')
    assert path.read_bytes() == b'{"n": 1}\n{"n": 2}\n{"n": 9}\n'
    with path.open("ab") as file:
        file.write(b"torn")
    with pytest.raises(ConfigError, match=r"row 2 of .*rows is another's"), open_resumable(path, claim):
        pass
    assert path.read_bytes().endswith(b'{"n": 9}\ntorn')
    path.write_bytes(b'{"n": 1}\n{"n"\n')
    with pytest.raises(ConfigError, match=r"row 1 of .*rows is no JSON: take it out"), open_resumable(path, claim):
        pass


def test_a_companion_says_whose_a_file_is(tmp_path: Path) -> None:
    path, companion = tmp_path / "rows", tmp_path / "made.json"

    def go_on(**made_with: Any) -> None:
        with open_resumable(path, lambda row: "", companion=companion, made_with=made_with):
            pass

    path.write_bytes(b"torn")
    with pytest.raises(ConfigError, match="rows holds no whole line of an earlier run"), open_resumable(path, str):
        pass
    with pytest.raises(ConfigError, match=r"rows exists, and no made\.json beside it"):
        go_on(n=1)
    assert path.read_bytes() == b"torn"
    path.unlink()
    go_on(n=1, model="m")
    assert json.loads(companion.read_text()) == {"n": 1, "model": "m"}
    path.write_bytes(b"torn in the first line")
    go_on(n=1, model="m")
    assert path.read_bytes() == b""
    with pytest.raises(ConfigError, match=r"rows was made with other n: 1 then, 2 now. Give another output"):
        go_on(n=2, model="m")
    companion.write_text("[]")
    with pytest.raises(ConfigError, match=r"made.json cannot be read: delete it and"):
        go_on(n=1, model="m")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def fill() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ConfigError, match=r"cannot write .*rows: No space left"), open_resumable(tmp_path / "rows"):
        fill()


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "new"):
        with pytest.raises(ConfigError, match="is being written by another process"), locked_folder(tmp_path / "new"):
            pass
        with locked_folder(tmp_path / "other"):
            pass
    with locked_folder(tmp_path / "new"):
        pass


@pytest.mark.parametrize("output", ["/dev/full", "/dev/null", "{folder}", "{folder}/pipe"])
def test_no_run_goes_on_in_what_is_no_regular_file(files: dict[str, Path], tmp_path: Path, output: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    given = ["--output", output.format(folder=tmp_path)]
    done = run("verify", files["answers"], "--tests", files["problems"], *given)
    assert (done.exit_code, done.stderr.count("Traceback")) == (1, 0)
    assert "cannot write" in done.stderr


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_file_of_a_folder_that_is_read_is_not_written_over_by_another_name(link: Any, tmp_path: Path) -> None:
    output = write(tmp_path / "answers.jsonl", ANSWER)
    (tmp_path / "folder").mkdir()
    link(tmp_path / "folder" / "rows.jsonl", output)
    before = output.read_bytes()
    done = run("extract", tmp_path / "folder", "--output", output)
    assert (done.exit_code, "is read and would be written over" in done.stderr) == (1, True)
    assert output.read_bytes() == before

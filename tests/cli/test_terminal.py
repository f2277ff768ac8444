"""Messages at the terminal."""

import os
import subprocess
import sys
from collections import defaultdict
from io import StringIO
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codescaler_plugin.cli import app, terminal
from codescaler_plugin.cli.terminal import Closing, Terminal, print_table, with_options
from tests.cli.commands import commands, options


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("give another `output=` or `api_key=`", "give another --output or --api-key"),
        ("leave `evaluation=` out", "leave --decontaminate out"),
        ("`completions` is no list, `x = 1` neither", "`completions` is no list, `x = 1` neither"),
    ],
)
def test_arguments_of_a_library_message_are_options(message: str, shown: str) -> None:
    assert with_options(message) == shown


def test_every_example_of_a_help_is_one_line_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    groups = [([], app), *(([group.name], group.typer_instance) for group in app.registered_groups)]
    for words, group in groups:
        for command in group.registered_commands:
            name = (command.name or command.callback.__name__).replace("_", "-")
            lines = CliRunner().invoke(app, [*words, name, "--help"]).output.splitlines()
            examples = [line for line in lines if f"codescaler {' '.join([*words, name])}" in line]
            assert examples, name
            assert all(len(line) <= 80 and "…" not in line for line in lines), name
            assert "Example: codescaler" in examples[0] or name == "where"


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["score", "-h"], ["where", "verl"], ["evaluate", "--help"]], ids=" ".join
)
def test_a_full_disk_behind_stdout_is_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "codescaler_plugin", *words], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (1, "error: cannot read or write: No space left on device\n")


def test_every_command_has_a_short_help_option() -> None:
    for name in commands():
        assert "Example: codescaler" in CliRunner().invoke(app, [*name.split(), "-h"]).output or name == "where", name


def test_the_shell_completes_commands() -> None:
    environment = {
        **os.environ,
        "_CODESCALER_COMPLETE": "complete_bash",
        "COMP_WORDS": "codescaler ca",
        "COMP_CWORD": "1",
    }
    command = [sys.executable, "-m", "codescaler_plugin"]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split() == ["calibrate"]
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "--install-completion" in shown
    assert "--show-completion" in shown


SAME = {  # the options of one name have one type and help in all commands, but for these
    "--output": "a file or a folder",
    "--api-key": "the key of callers in `serve`, of a server elsewhere",
    "--timeout": "of a request in `serve`, of a program elsewhere",
    "--extraction": "`continue` is one more rule of `verify`",
    "--max-new-tokens": "with a default of its own in `evaluate generation`",
    "--server": "needed by `sample`",
    "-n": "the largest number in `sample`, which may stop early",
}
DEFAULTS = {  # the options of one name have one default, but for these
    "--output": "each command's own file or folder",
    "--extraction": "`last` where completions are compared or measured, see `cli.options`",
    "--timeout": "as above",
    "--max-pairs": "all in `mine`; `evaluate robustness` draws 500, each of which takes many programs",
    "--max-new-tokens": "as above",
    "--temperature": "1 to find a right completion, the benchmarks' 0.6 to measure a policy",
}


def test_one_name_is_one_thing() -> None:
    helps, defaults = defaultdict(set), defaultdict(set)
    for command in commands().values():
        for name, option in options(command).items():
            helps[name].add(option.help)
            defaults[name].add(str(option.default))
    assert {name for name, texts in helps.items() if len(texts) > 1} <= {*SAME}
    assert {name for name, values in defaults.items() if len(values) > 1} == {*DEFAULTS}
    rule = [
        (name, options(command)["--extraction"].default)
        for name, command in commands().items()
        if "--extraction" in options(command)
    ]
    assert {name for name, default in rule if default == "single"} == {"score", "extract", "verify"}


def test_one_thing_has_one_name() -> None:
    names = defaultdict(set)
    for command in commands().values():
        for name, option in options(command).items():
            if option.help:
                names[option.help].add(name)
    assert {text: same for text, same in names.items() if len(same) > 1} == {}


def test_the_closing_line_has_counts_time_rate_and_files() -> None:
    line = Closing().text(
        "scored", 120, "completions", of=123, counts={"ok": 97, "none": 0}, written=["a", None], seconds=4
    )
    assert line == "scored 120 of 123 completions in 4.0 s (30/s): 97 ok; wrote a"
    assert Closing().text("read", 0, "rows", of=0, seconds=0) == "read 0 rows in 0.0 s"


def test_a_table_wider_than_the_terminal_is_printed_in_parts() -> None:
    file = StringIO()
    head = ["", *(f"choice {n}" for n in range(6))]
    rows = [["N = 1", *["0.375 (0.300 to 0.450)"] * 6], ["Heading"], ["N = 2", *["1"] * 6]]
    print_table(Terminal(file=file, width=80), head, rows)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("N = 1") for line in lines) == 3
    assert sum(line.count("0.375 (0.300 to 0.450)") for line in lines) == 6


@pytest.mark.parametrize("at_terminal", [True, False])
def test_there_is_no_bar_between_rows_at_a_terminal(at_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = StringIO()
    monkeypatch.setattr(terminal, "errors", Terminal(file=shown, force_terminal=True))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: at_terminal, raising=False)
    with terminal.open_output(None), terminal.progress_bar("scoring", 3) as advance:
        advance(1)
    assert ("scoring" in shown.getvalue()) is not at_terminal

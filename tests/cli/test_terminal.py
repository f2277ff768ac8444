"""Messages at the terminal."""

import pytest
from typer.testing import CliRunner

from codescaler_plugin.cli import app
from codescaler_plugin.cli.terminal import with_options


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
            assert all(len(line) <= 80 for line in lines), name
            assert "Example: codescaler" in examples[0] or name == "where"

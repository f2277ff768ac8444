"""All commands, for tests that may leave none out."""

from collections.abc import Iterator
from typing import Any

from click import Command
from typer.main import get_command

from codescaler_plugin.cli import app


def commands() -> dict[str, Command]:
    """Every command by its words, such as `evaluate pairs`."""
    return dict(_below(get_command(app), ()))


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Command]]:
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _below(child, (*words, name))
    else:
        yield " ".join(words), command


def options(command: Command) -> dict[str, Any]:
    """The options of a command by their names, such as --model."""
    return {parameter.opts[0]: parameter for parameter in command.params if parameter.opts[0].startswith("-")}

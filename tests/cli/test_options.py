"""A group of options is to a command what its fields would be."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from codescaler_plugin.cli import app as command
from codescaler_plugin.cli.options import grouped
from codescaler_plugin.cli.sandbox_options import SandboxOptions
from codescaler_plugin.generation.sampling import Sampling


@dataclass(frozen=True)
class Limits:
    seconds: Annotated[float, typer.Option(min=1, help="Per program.")] = 3.0
    name: Annotated[list[str] | None, typer.Option(metavar="NAME")] = None


def app() -> tuple[typer.Typer, list[tuple[str, Limits, bool]]]:
    seen = []
    made = typer.Typer()

    @made.command()
    @grouped
    def run(source: str, *, limits: Limits, fast: Annotated[bool, typer.Option("--fast")] = False) -> None:
        """Run it."""
        seen.append((source, limits, fast))

    return made, seen


@pytest.mark.parametrize(
    ("given", "limits", "fast"),
    [
        ([], Limits(), False),
        (["--seconds", "5", "--name", "a", "--name", "b", "--fast"], Limits(5.0, ["a", "b"]), True),
    ],
)
def test_a_command_gets_its_group(given: list[str], limits: Limits, fast: bool) -> None:
    made, seen = app()
    result = CliRunner().invoke(made, ["here", *given])
    assert result.exit_code == 0, result.output
    assert seen == [("here", limits, fast)]


def test_fields_are_options_like_others() -> None:
    made, seen = app()
    shown = CliRunner().invoke(made, ["--help"]).output
    assert [word in shown for word in ("Run it.", "Per program.", "[default: 3.0]", "limits")] == [True] * 3 + [False]
    assert shown.index("--seconds") < shown.index("--name") < shown.index("--fast")
    assert CliRunner().invoke(made, ["here", "--seconds", "0"]).exit_code == 2
    assert seen == []


def test_every_command_that_runs_tests_has_all_options_of_the_sandbox() -> None:
    for words in (["verify"], ["augment"], ["rank"], ["evaluate", "generation"]):
        shown = CliRunner().invoke(command, [*words, "--help"]).output
        for name in SandboxOptions.__dataclass_fields__:
            assert f"--{name.replace('_', '-')}" in shown, (words, name)


def test_sampling_has_the_defaults_of_its_class() -> None:
    shown = CliRunner().invoke(command, ["evaluate", "generation", "--help"]).output
    for value in (Sampling.temperature, Sampling.top_p, Sampling.max_tokens):
        assert f"[default: {value}]" in shown


def test_what_verdicts_depend_on_is_told_in_one_form() -> None:
    options = SandboxOptions(package=["numpy", "attrs"], timeout=5.0, workers=7)
    assert options.settings == {"timeout": 5.0, "memory_mb": 1024, "packages": ["attrs", "numpy"]}

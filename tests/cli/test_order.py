"""What a command needs is checked before its model loads."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from codescaler_plugin import extras
from codescaler_plugin.cli import app
from tests.cli.commands import commands, options
from tests.cli.test_inputs import COMMANDS, as_lines

MODULES = ("jinja2", "matplotlib", "scipy", "sklearn")  # of extras that commands with a reward model need
SCORING = [name for name in COMMANDS if "--model" in options(commands()[name])]


class LoadedError(Exception):
    """The model was loaded."""


class Unloadable:
    """A scorer that may not be loaded."""

    def ensure_loaded(self) -> None:
        raise LoadedError

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        raise LoadedError


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("codescaler_plugin.scoring.spec.Classifier.scorer", lambda _: Unloadable())

    def words(command: str) -> list[str]:
        given, more = COMMANDS[command]
        file = tmp_path / "rows.jsonl"
        file.write_bytes(as_lines(given))
        return [*command.split(), str(file), *more.format(out=tmp_path / "out", server="http://localhost:1").split()]

    return words


@pytest.mark.parametrize("command", SCORING)
def test_a_missing_extra_is_named_before_the_model_loads(
    command: str, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = []
    for module in MODULES:
        monkeypatch.setattr(
            extras, "find_spec", lambda name, module=module: None if name == module else find_spec(name)
        )
        done = CliRunner().invoke(app, rows(command))
        if isinstance(done.exception, LoadedError):
            continue
        assert done.exit_code == 1, done.output
        assert f"needs {module}. Install with: pip install" in done.stderr
        needed.append(module)
    assert needed == {
        "calibrate": ["sklearn"],
        "evaluate pairs": ["scipy", "sklearn"],
        "evaluate candidates": ["scipy"],
        "evaluate calibration": ["scipy", "sklearn"],
        "evaluate robustness": ["scipy"],
    }.get(command, [])


@pytest.mark.parametrize("command", SCORING)
def test_columns_and_rows_are_checked_before_the_model_loads(command: str, rows: Any) -> None:
    done = CliRunner().invoke(app, [*rows(command), "--columns", "problem=absent"])
    assert done.exit_code == 1
    assert "no column 'absent'" in done.stderr


@pytest.mark.parametrize("command", SCORING)
def test_the_model_is_loaded_when_all_is_well(command: str, rows: Any) -> None:
    assert isinstance(CliRunner().invoke(app, rows(command)).exception, LoadedError)

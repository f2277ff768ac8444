"""`codescaler where` and the folders of `integrations/` that it lists."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codescaler_plugin import integrations
from codescaler_plugin.cli import app


def run(*arguments: str):
    return CliRunner().invoke(app, ["where", *arguments], env={"COLUMNS": "100"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A host's folder beside those of the package."""
    host = tmp_path / "some_host"
    host.mkdir()
    (host / "__init__.py").write_text(
        'FILES = {"some-host": ("file.py", \'--flag "$(codescaler where some-host)"\')}\n'
    )
    (host / "file.py").write_text("")
    monkeypatch.setattr(integrations, "__path__", [*integrations.__path__, str(tmp_path)])
    yield host
    sys.modules.pop("codescaler_plugin.integrations.some_host", None)
    vars(integrations).pop("some_host", None)


def test_each_name_has_a_file_and_a_line_to_type():
    files = integrations.host_files()
    assert files.keys() == {"openrlhf", "openrlhf-agent", "verl"}
    shown = run("--help").stdout
    for name, (path, usage) in files.items():
        assert f"$(codescaler where {name})" in usage
        assert path.is_file()
        assert path.is_absolute()
        assert run(name).stdout.strip() == str(path)
        for line in usage.splitlines():
            assert line in shown


def test_a_new_folder_is_a_new_host(folder):
    assert run("some-host").stdout.strip() == str(folder / "file.py")
    assert '--flag "$(codescaler where some-host)"' in run("--help").stdout
    assert run("--help").stdout == run("--help").stdout


def test_an_unknown_host_is_an_error_that_lists_the_hosts(folder):
    refused = run("trl")
    assert refused.exit_code == 2
    assert "'trl' is not a host: expected openrlhf, openrlhf-agent, verl, some-host" in refused.stderr

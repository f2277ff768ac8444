"""`codescaler serve` before it listens."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "give --api-key, or --insecure"),
        (["--backend", "localhost:8000"], "expected an address such as vllm+http://host:8000"),
        (["--on-failure", "stop"], "--on-failure is 'stop': expected a reward or 'error'"),
        (["--on-failure", "nan"], "expected a finite number"),
        (["--api-key", ""], "api_key must be ASCII text"),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(arguments: list[str], said: str) -> None:
    from typer.testing import CliRunner

    from codescaler_plugin.cli import app

    result = CliRunner().invoke(app, ["serve", "--model", "builtin", *arguments])
    assert result.exit_code == 1
    assert said in result.stderr

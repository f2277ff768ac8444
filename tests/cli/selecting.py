"""Rows and runs for the tests of `codescaler rank`, `calibrate` and `sample`."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from codescaler_plugin.cli import app
from codescaler_plugin.selection.calibration import Calibration
from tests.samples import fenced

PROBLEM = "Write solve(xs). From a list xs of integers, return the sum."
RIGHT = "def solve(xs):\n    return sum(xs)"
WRONG = "def solve(xs):\n    return max(xs)"
LOOP = "def solve(xs):\n    while True:\n        pass"
ROW = {"problem": PROBLEM, "completions": [fenced(WRONG), fenced(RIGHT), "I cannot.", fenced(RIGHT)]}
TESTS = {"id": "sum", "problem": PROBLEM, "tests": [[[1, 2], 3], [[5], 5]]}


def run(command: str, *arguments: str, rows: list[Any] | None = None) -> Result:
    given = [ROW] if rows is None else rows
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in given)
    return CliRunner().invoke(app, [command, "--model", "builtin", *arguments], input=text)


def read(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def certain(tmp_path: Path, probability: float) -> str:
    file = tmp_path / f"{probability}.json"
    model = "first of N by builtin, self-consistency 0"
    file.write_text(Calibration("isotonic", 10, 5, knots=((0.0, probability),), model=model).to_json())
    return str(file)

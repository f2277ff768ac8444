"""Fixtures of the tests of `codescaler rank`, `calibrate` and `sample`."""

import json
from pathlib import Path

import pytest

from codescaler_plugin import load_scorer
from tests.cli.selecting import LOOP, PROBLEM, RIGHT, TESTS, WRONG


@pytest.fixture(scope="module")
def scores() -> dict[str, float]:
    codes = [RIGHT, WRONG, LOOP]
    found = load_scorer("builtin").score([(PROBLEM, code + "\n") for code in codes])
    return dict(zip(codes, found, strict=True))


@pytest.fixture
def tests_file(tmp_path: Path) -> Path:
    path = tmp_path / "tests.jsonl"
    path.write_text(json.dumps(TESTS) + "\n")
    return path

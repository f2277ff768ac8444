"""Programs and tests in the forms that data sets publish, each with its right verdict (`tests/cases/verdicts.jsonl`)."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.execution.sandbox import Sandbox

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "cases" / "verdicts.jsonl").open()]


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[Callable[..., Sandbox]]:
    """A sandbox for each choice of packages."""
    with ExitStack() as stack:
        yield cache(lambda *packages: stack.enter_context(Sandbox(workers=1, packages=packages)))


@pytest.mark.parametrize("case", CASES, ids=[case["id"].replace(" ", "-") for case in CASES])
def test_verdict(case: dict[str, Any], tmp_path: Path, sandboxes: Callable[..., Sandbox]) -> None:
    for name in case["packages"]:
        pytest.importorskip(name)
    file = tmp_path / "problem.jsonl"
    file.write_text(json.dumps(case["problem"]) + "\n")
    [problem] = read_problems(file)
    [verdict] = sandboxes(*case["packages"]).run([(case["code"], problem)])
    assert verdict.passed == case["passes"], verdict
    if case["passes"]:
        assert (verdict.detail, verdict.fault) == ("", None)
    else:
        assert verdict.detail

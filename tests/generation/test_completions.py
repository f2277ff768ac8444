"""An interrupted run resumes, and settings are never mixed."""

import json

import pytest

from codescaler_plugin.errors import ConfigError, DataError, GenerationError
from codescaler_plugin.generation.completions import generate
from codescaler_plugin.generation.sampling import Sampling
from codescaler_plugin.records import CallTest, Problem, StdioTest
from tests.samples import fenced

ADD = Problem("add", "Add one to n.", (CallTest((1,), 2),), "solve")
ECHO = Problem("echo", "Echo the line.", (StdioTest("a\n", "a\n"),))
RIGHT = fenced("def solve(n):\n    return n + 1")


class Writer:
    """Completions from a list, and what was asked; fails at a given call."""

    def __init__(self, fails_at: int = -1) -> None:
        self.asked: list[tuple[str, int]] = []
        self.fails_at = fails_at

    def __call__(self, prompt: str, n: int) -> list[str]:
        if len(self.asked) == self.fails_at:
            raise GenerationError("the server is gone")
        self.asked.append((prompt, n))
        return [RIGHT] * n


def test_a_stopped_run_asks_only_for_what_is_missing(tmp_path):
    problems = {"one": [ADD], "two": [ECHO]}
    with pytest.raises(GenerationError):
        generate(problems, Writer(fails_at=1), tmp_path, n=2, sampling=Sampling(), model="m")
    path = tmp_path / "generations.jsonl"
    assert len(path.read_text().splitlines()) == 2
    with path.open("a") as file:
        file.write('{"problem_id": "echo", "torn')
    again = Writer()
    ticks: list[int] = []
    generate(problems, again, tmp_path, n=3, sampling=Sampling(), model="m", progress=ticks.append)
    asked = sorted(n for _, n in again.asked)
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert asked == [1, 3]
    assert sum(ticks) == 6
    assert (
        sorted((row["problem_id"], row["source"]) for row in written) == [("add", "one")] * 3 + [("echo", "two")] * 3
    )
    idle = Writer()
    generate(problems, idle, tmp_path, n=3, sampling=Sampling(), model="m")
    assert idle.asked == []


def test_completions_of_other_settings_are_not_mixed(tmp_path):
    generate({"one": [ADD]}, Writer(), tmp_path, n=1, sampling=Sampling(), model="m")
    with pytest.raises(ConfigError, match=r"other temperature: 0\.6 then, 1\.0 now"):
        generate({"one": [ADD]}, Writer(), tmp_path, n=1, sampling=Sampling(temperature=1.0), model="m")
    with pytest.raises(ConfigError, match="other model: 'm' then, 'other' now"):
        generate({"one": [ADD]}, Writer(), tmp_path, n=1, sampling=Sampling(), model="other")
    with pytest.raises(DataError, match="problem id 'add' stands for more than one"):
        generate({"one": [ADD], "two": [ADD]}, Writer(), tmp_path / "x", n=1, sampling=Sampling(), model="m")

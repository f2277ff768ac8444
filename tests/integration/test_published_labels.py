"""Verdicts agree with the labels of published samples, and what differs is explained; on one in ninety of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.data.rollouts import read_rollouts
from codescaler_plugin.preference.verification import executors, verify_rollouts
from tests.processes import untraced

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
RECIPE = ROOT / "recipes" / "data"
EVERY = 90

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the development data is not here")


def agreement(folder: Path, problems: list[Path]) -> tuple[int, dict]:
    given: list[Path | str] = [
        folder / "rollouts.jsonl",
        folder / "verdicts.jsonl",
        "--tests",
        *problems,
        "--without",
        "reflexion",
    ]
    done = subprocess.run(
        [sys.executable, RECIPE / "agreement.py", *given], capture_output=True, text=True, env=untraced()
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def test_verdicts_agree_with_published_labels(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    subprocess.run(
        [sys.executable, RECIPE / "public_samples.py", DATA, whole], check=True, capture_output=True, env=untraced()
    )
    part = tmp_path / "rollouts.jsonl"
    part.write_text("".join(whole.read_text().splitlines(keepends=True)[::EVERY]))
    problems = [DATA / "humaneval" / "HumanEval.jsonl.gz", DATA / "mbpp" / "mbpp.jsonl"]
    with executors(timeout=30) as (executor, second):
        report = verify_rollouts(
            read_rollouts(part),
            [problem for path in problems for problem in read_problems(path)],
            tmp_path / "verdicts.jsonl",
            executor=executor,
            second=second,
            extraction="bare",
        )
    assert report.rows == 208
    assert 40 < report.passed < 120
    code, result = agreement(tmp_path, problems)
    assert result["rows"] > 200
    assert result["share"] >= 0.98  # one in fifty of the answers for MBPP is labelled otherwise, each with a reason
    assert "unexplained" not in result["explained"]
    assert code == (result["share"] < 0.995)


def test_a_difference_without_a_reason_is_unexplained_and_told_by_the_exit_code(tmp_path: Path) -> None:
    problems = tmp_path / "mbpp.jsonl"
    problems.write_text(json.dumps({"task_id": 1, "text": "Add one.", "test_list": ["assert add(1) == 2"]}) + "\n")
    codes = {"wrong": "def add(n):\n    return n", "math": "def add(n):\n    return math.floor(n) + 1"}
    rows = [{"problem_id": "MBPP/1", "completion": code, "source": name} for name, code in codes.items()]
    made = {"status": "ok", "passed": False, "flaky": False}
    for name, extra in (("rollouts", {"label": True}), ("verdicts", made)):
        lines = [{**row, **extra, **({"code": row["completion"]} if name == "verdicts" else {})} for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, result = agreement(tmp_path, [problems])
    assert code == 1
    assert result["explained"] == {"unexplained": 1, "passes with imports that it lacks": 1}

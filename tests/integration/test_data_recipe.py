"""The commands from rollouts to pairs, on a part of the recipe's own slice."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "data"
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
PROBLEMS = 5


def read(path: Path) -> list[dict]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("recipe")
    problems = read(RECIPE / "slice" / "problems.jsonl.gz")[:PROBLEMS]
    names = {problem["task_id"] for problem in problems}
    rollouts = [row for row in read(RECIPE / "slice" / "rollouts.jsonl.gz") if row["task_id"] in names]
    given = {
        "PROBLEMS": str(write(folder / "problems.jsonl", problems)),
        "ROLLOUTS": str(write(folder / "rollouts.jsonl", rollouts)),
        "EVALUATION": str(write(folder / "bench.jsonl", problems[:1])),
        "OUTPUT": str(folder / "out"),
        "KINDS": "unaligned=0.3 stub=0.2 rename=0.2",
        "HELD_OUT": "0.4",
    }
    done = subprocess.run(
        ["bash", str(RECIPE / "pairs.sh")], env=ENVIRONMENT | given, capture_output=True, text=True, timeout=230
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return folder / "out", json.loads(done.stdout.splitlines()[-1]), folder


def test_every_pair_is_confirmed_by_a_second_execution(output):
    _, result, _ = output
    assert result["pairs"] == result["confirmed"] > 20
    assert result["without_tests"] == 0
    assert {"rollout", "unaligned"} <= set(result["kinds"])


def test_the_evaluation_problem_is_in_no_pair_and_in_the_report(output):
    folder, _, given = output
    [bench] = read(given / "bench.jsonl")
    pairs = read(folder / "augmented.jsonl")
    assert bench["task_id"] not in {pair["problem_id"] for pair in pairs}
    [mined] = json.loads((folder / "mined.report.json").read_text())
    assert [one["evaluation"] for one in mined["contamination"]] == ["bench"]
    reports = json.loads((folder / "augmented.report.json").read_text())
    assert reports[0] == mined
    assert reports[1]["kinds"]["unaligned"]["made"] > 0


def test_the_trainers_files_hold_each_side_of_the_split(output):
    folder, _, _ = output
    pairs = read(folder / "augmented.jsonl")
    for name, split in (("train.jsonl", "train"), ("train.held_out.jsonl", "held_out")):
        rows = read(folder / name)
        assert len(rows) == sum(pair["split"] == split for pair in pairs) > 0
        assert set(rows[0]) == {"prompt", "chosen", "rejected", "margin"}


def test_the_card_is_a_page_with_a_picture(output):
    folder, result, _ = output
    page = (folder / "card" / "README.md").read_text()
    assert f"{result['pairs']:,} pairs" in page
    assert "Contamination: 1 problems removed, checked against bench" in page
    assert (folder / "card" / "data_card.png").stat().st_size > 10_000
    commands = json.loads((folder / "card" / "data_card.json").read_text())["commands"]
    assert [command.split()[1] for command in commands] == ["mine", "augment"]


def test_a_pair_that_does_not_hold_is_told(output, tmp_path):
    folder, _, given = output
    pair = read(folder / "mined.jsonl")[0]
    swapped = pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]}
    file = write(tmp_path / "swapped.jsonl", [pair, swapped])
    done = subprocess.run(
        [sys.executable, str(RECIPE / "confirm.py"), str(file), "--tests", str(given / "problems.jsonl")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    first, last = map(json.loads, done.stdout.splitlines())
    assert first == {"problem_id": pair["problem_id"], "kind": "rollout", "right": False, "wrong": False}
    assert (last["pairs"], last["confirmed"]) == (2, 1)


def test_the_readme_names_every_variable_of_the_script_with_its_default():
    script, page = (RECIPE / "pairs.sh").read_text(), (RECIPE / "README.md").read_text()
    names = set(re.findall(r"\$\{([A-Z_]{2,}):-", script)) - {"BASH_SOURCE"}
    assert {"ROLLOUTS", "PROBLEMS", "OUTPUT", "EXTRACTION", "PACKAGES", "FORMAT", "SEED"} <= names
    for name in names:
        assert f"| `{name}` |" in page
    assert "unaligned=0.3 condition=0.1 off_by_one=0.1 rename=0.1" in page

"""The embedded models are small, complete, offline, and as their card says."""

import json
import re
from pathlib import Path

from codescaler_plugin import CodeScaler, load_scorer
from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, MODEL_CARD, POLICY, REWARD_MODEL, TRAIN_PROBLEMS
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.data.rollouts import rows_of
from codescaler_plugin.execution.sandbox import run_tests

PROBLEM = (
    "Write solve(xs): for a list xs of integers, keep the even numbers, then square each number, then return the sum."
)
RIGHT = "def solve(xs):\n    ys = [x for x in xs if x % 2 == 0]\n    ys = [x * x for x in ys]\n    return sum(ys)\n"
OFF_TOPIC = "def solve(xs):\n    return len(set(xs))\n"


def test_models_fit_the_repository():
    files = [path for folder in (POLICY, REWARD_MODEL) for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 16e6
    assert {path.suffix for path in files} <= {".json", ".jinja", ".safetensors"}


def test_card_holds_the_numbers_that_were_measured():
    numbers = json.loads(Path(MODEL_CARD).with_name("measurements.json").read_text())
    card = MODEL_CARD.read_text(encoding="utf-8")
    assert not re.search(r"\{[\w ,]+\.[\w ]+\}|@@", card)
    for section in ("policy", "rollout_pairs", "real_pairs", "codejudge"):
        for value in numbers[section].values():
            assert str(value) in card


def test_reward_model_judges_through_the_pipeline():
    fenced = [f"```python\n{code}```" for code in (RIGHT, OFF_TOPIC)]
    right, wrong = CodeScaler(load_scorer("builtin")).judge([PROBLEM] * 2, fenced)
    assert right.reward > wrong.reward > 0


def test_training_problems_carry_no_tests_and_are_not_held_out():
    train, held_out = ([row for _, _, row in rows_of(path)] for path in (TRAIN_PROBLEMS, HELD_OUT_PROBLEMS))
    assert all(row.keys() == {"problem"} for row in train)
    assert not {row["problem"] for row in train} & {row["problem"] for row in held_out}
    assert len(train) >= 1000


def test_held_out_tests_reject_an_empty_answer():
    problems = list(read_problems(HELD_OUT_PROBLEMS))[:20]
    assert not any(v.passed for v in run_tests([("def solve(a):\n    return None\n", one) for one in problems]))

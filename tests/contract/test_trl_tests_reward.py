"""The tests-reward in the real trainers of TRL, alone and beside the reward model; the sandbox is real."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

trl = pytest.importorskip("trl")

import pandas as pd  # noqa: E402 - comes with trl
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer  # noqa: E402

from codescaler_plugin import CodeScalerReward, CodeScalerTestsReward  # noqa: E402
from codescaler_plugin.records import CallTest, Problem, ScriptTest  # noqa: E402
from codescaler_plugin.testing import FakeScorer  # noqa: E402
from tests.processes import untraced  # noqa: E402
from tests.samples import fenced  # noqa: E402

ROOT = Path(__file__).parents[2]
ADD = Problem("add", "Write solve(n) that adds one.", (CallTest((1,), 2), CallTest((5,), 6)), "solve")
BROKEN = Problem("broken", "Write solve(n), whose tests are broken.", (ScriptTest("import no_such_package"),), "solve")
OTHER = "Write solve(n), for which there are no tests."
ANSWERS = [
    fenced("def solve(n):\n    return n + 1"),
    fenced("def solve(n):\n    return n"),
    "I cannot.",
    fenced("def solve(n):\n    return n + 1 - 0"),
]
OF_ADD = [1.0, 0.0, 0.0, 1.0]


class Ghostwriter:
    """Hands in the four answers of each group instead of what a random policy writes, and keeps the rewards."""

    def __init__(self, reward: Any) -> None:
        self.reward, self.__name__ = reward, reward.__name__
        self.rewards: dict[str, list[float | None]] = {}

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        texts: list[Any] = [ANSWERS[number % 4] for number in range(len(completions))]
        if not isinstance(completions[0], str):
            texts = [[{"role": "assistant", "content": text}] for text in texts]
        given: list[float | None] = self.reward(prompts, texts, **columns)
        for prompt, reward in zip(prompts, given, strict=True):
            text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
            self.rewards.setdefault(text, []).append(reward)
        return given


def train(kind: str, policy: Path, folder: Path, rewards: list[Any], data: dict[str, Any], **settings: Any) -> Any:
    trainer_class, config_class = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}[kind]
    trainer = trainer_class(
        str(policy),
        reward_funcs=rewards,
        args=config_class(
            output_dir=str(folder),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            max_completion_length=8,
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=1,
            max_steps=1,
            num_generations=4,
            **settings,
        ),
        train_dataset=Dataset.from_dict(data),
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_the_tests_alone_are_a_reward(tiny_policy_dir: Path, tmp_path: Path, kind: str) -> None:
    tests = CodeScalerTestsReward([ADD], workers=1)
    reward = Ghostwriter(tests)
    trainer = train(kind, tiny_policy_dir, tmp_path, [reward], {"prompt": [ADD.text]}, per_device_train_batch_size=4)
    tests.close()
    log = trainer.state.log_history[0]
    assert reward.rewards == {ADD.text: OF_ADD}
    assert log["reward"] == log["rewards/tests/mean"] == 0.5
    assert log["tests/pass_rate"] == pytest.approx(2 / 3)
    assert log["tests/status/no_block"] == 0.25
    assert log["grad_norm"] > 0
    assert math.isfinite(log["loss"])


@pytest.fixture(scope="module")
def hybrid(tiny_policy_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One GRPO step: a problem with tests, one without, and one whose tests cannot run; prompts with instructions."""
    folder = tmp_path_factory.mktemp("hybrid")
    tests = CodeScalerTestsReward([ADD, BROKEN], workers=1)
    scorer = FakeScorer()
    by_tests = Ghostwriter(tests)
    by_model = Ghostwriter(tests.elsewhere(CodeScalerReward(scorer=scorer, shaping="raw", problem_column="problem")))
    texts = {"add": ADD.text, "broken": BROKEN.text, "other": OTHER}
    trainer = train(
        "grpo",
        tiny_policy_dir,
        folder,
        [by_tests, by_model],
        {
            "prompt": [[{"role": "user", "content": f"{text} Use one block."}] for text in texts.values()],
            "problem": list(texts.values()),
            "problem_id": list(texts),
        },
        per_device_train_batch_size=12,
        log_completions=True,
        learning_rate=1e-3,
        multi_objective_aggregation="normalize_then_sum",
    )
    tests.close()
    (table,) = (folder / "completions").glob("*.parquet")
    return {
        "log": trainer.state.log_history[0],
        "table": pd.read_parquet(table),
        "by_tests": by_tests.rewards,
        "by_model": by_model.rewards,
        "scorer": scorer,
        "asked": {text: f"{text} Use one block." for text in texts.values()},
    }


def test_each_problem_of_a_hybrid_run_has_one_of_the_two_rewards(hybrid: dict[str, Any]) -> None:
    asked = hybrid["asked"]
    lengths = [float(len(answer.split("```python\n")[1].split("```")[0])) for answer in (ANSWERS[0], ANSWERS[1])]
    none: list[float | None] = [None] * 4
    assert hybrid["by_tests"][asked[ADD.text]] == OF_ADD
    assert hybrid["by_tests"][asked[OTHER]] == none
    assert hybrid["by_model"][asked[ADD.text]] == none
    assert hybrid["by_model"][asked[OTHER]][:3] == [*lengths, 0.0]
    assert {problem for call in hybrid["scorer"].calls for problem, _ in call} == {OTHER}


def test_broken_tests_judge_no_program(hybrid: dict[str, Any]) -> None:
    asked = hybrid["asked"][BROKEN.text]
    assert hybrid["by_tests"][asked] == [None, None, 0.0, None]
    assert hybrid["by_model"][asked] == [None] * 4


def test_a_hybrid_run_has_a_gradient_and_finite_numbers(hybrid: dict[str, Any]) -> None:
    numbers = {name: value for name, value in hybrid["log"].items() if isinstance(value, int | float)}
    assert [name for name, value in numbers.items() if not math.isfinite(value)] == []
    assert hybrid["log"]["grad_norm"] > 0
    assert hybrid["log"]["tests/untested"] == pytest.approx(1 / 3)
    assert hybrid["log"]["tests/unjudged"] == 3.0
    assert hybrid["log"]["tests/pass_rate"] == pytest.approx(2 / 3)


def test_the_table_of_completions_says_what_the_tests_found(hybrid: dict[str, Any]) -> None:
    table = hybrid["table"]
    named = {prompt[-1]["content"] if not isinstance(prompt, str) else prompt for prompt in table["prompt"]}
    assert len(named) == 3
    found = sorted(map(str, table["tests/verdict"].dropna()))
    assert found == ["failed", *["missing_package"] * 3, "passed", "passed"]
    assert table["tests/status"].isna().sum() == 4
    assert table["codescaler_reward/status"].isna().sum() == 8


def test_two_ranks_of_which_one_has_tests_log_the_same_metrics(tiny_policy_dir: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_ranks_hybrid.py")
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script))
    done = subprocess.run(
        [sys.executable, *command, str(tiny_policy_dir), str(tmp_path)],
        cwd=tmp_path, env=untraced(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"), capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert [report["processes"] for report in reports] == [2, 2]
    for name in ("tests", "codescaler_reward"):
        (one,), (two,) = (report["calls"][name] for report in reports)
        assert one["metrics"].keys() == two["metrics"].keys(), name
        assert sorted([one["rewards"].count(None), two["rewards"].count(None)]) == [0, 4], name
    (one,), (two,) = (report["calls"]["tests"] for report in reports)
    assert one["metrics"]["tests/pass_rate"] == two["metrics"]["tests/pass_rate"] == 0.5

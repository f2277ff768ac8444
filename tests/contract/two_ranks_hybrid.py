"""One hybrid GRPO step in each of two processes, of which one has the problem with tests; for test_trl_tests_reward.py.

Arguments: policy, folder for one file per rank that holds what the rank's rewards gave and logged.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from codescaler_plugin import CodeScalerReward, CodeScalerTestsReward
from codescaler_plugin.records import CallTest, Problem
from codescaler_plugin.testing import FakeScorer
from tests.samples import fenced

policy, folder = sys.argv[1:]
rank = int(os.environ["RANK"])
TESTED = "Write solve(n) that adds one."
calls: dict[str, list[dict[str, Any]]] = {}


class Watched:
    """Hands in programs, for a random policy writes none, and keeps its calls."""

    def __init__(self, reward: Any) -> None:
        self.reward, self.__name__ = reward, reward.__name__

    def __call__(self, prompts: Any, completions: Any, *, log_metric: Any, **columns: Any) -> list[float | None]:
        metrics: dict[str, float] = {}

        def both(name: str, value: float) -> None:
            metrics[name] = value
            log_metric(name, value)

        written = [fenced(f"def solve(n):\n    return n + {number % 2}") for number in range(len(prompts))]
        rewards: list[float | None] = self.reward(prompts, written, log_metric=both, **columns)
        calls.setdefault(self.__name__, []).append({"prompts": prompts, "rewards": rewards, "metrics": metrics})
        return rewards


tests = CodeScalerTestsReward([Problem("add", TESTED, (CallTest((1,), 2),), "solve")], workers=1)
trainer = GRPOTrainer(
    policy,
    reward_funcs=[Watched(tests), Watched(tests.elsewhere(CodeScalerReward(scorer=FakeScorer())))],
    args=GRPOConfig(
        output_dir=f"{folder}/run",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
        max_steps=1,
        max_completion_length=8,
        per_device_train_batch_size=4,
        num_generations=4,
        log_completions=True,
        multi_objective_aggregation="normalize_then_sum",
    ),
    train_dataset=Dataset.from_dict({"prompt": [TESTED, "Another problem."]}),
)
trainer.train()
report = {"processes": trainer.accelerator.num_processes, "calls": calls, "log": trainer.state.log_history}
Path(folder, f"rank-{rank}.json").write_text(json.dumps(report))
tests.close()
sys.stdout.flush()
os._exit(0)  # threads of the host's libraries still run when the interpreter ends, which aborted 1 process in 20

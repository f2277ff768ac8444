"""One GRPO step in each of two processes; started by test_trl.py.

Arguments: policy, reward model, folder for one file per rank that holds what the rank's reward saw and gave; `invalid`
if the programs of the second rank are to be none.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from codescaler_plugin import CodeScalerReward
from codescaler_plugin.testing import FakeScorer
from tests.samples import fenced

policy, reward_model, folder, *invalid = sys.argv[1:]
rank = int(os.environ["RANK"])
calls: list[dict[str, Any]] = []


class Watched(CodeScalerReward):
    """Keeps its calls. The answers are replaced, for a random policy writes no program."""

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        written = [fenced("x" * (4 * rank + number + 1) + " = 1") for number in range(len(prompts))]
        if invalid and rank == 1:
            written = ["I cannot."] * len(prompts)
        metrics: dict[str, float] = {}
        log_metric = columns.pop("log_metric")

        def both(name: str, value: float) -> None:
            metrics[name] = value
            log_metric(name, value)

        rewards = super().__call__(prompts, written, log_metric=both, **columns)
        calls.append({"prompts": prompts, "rewards": rewards, "metrics": metrics})
        return rewards


trainer = GRPOTrainer(
    policy,
    reward_funcs=[
        Watched(scorer=FakeScorer(), shaping="raw", name="length"),
        CodeScalerReward(model=reward_model, name="model"),
    ],
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
        num_generations=8,
    ),
    train_dataset=Dataset.from_dict({"prompt": [f"Problem {number}." for number in range(4)]}),
)
trainer.train()
report = {"processes": trainer.accelerator.num_processes, "calls": calls, "log": trainer.state.log_history}
Path(folder, f"rank-{rank}.json").write_text(json.dumps(report))
sys.stdout.flush()
os._exit(0)  # threads of the host's libraries still run when the interpreter ends, which aborted 1 process in 20

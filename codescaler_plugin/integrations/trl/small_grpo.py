"""GRPO for the small policies of the quickstart and the miniature, with TRL's `GRPOTrainer` on a CPU."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from codescaler_plugin.builtin import TRAIN_PROBLEMS
from codescaler_plugin.data.rollouts import rows_of
from codescaler_plugin.integrations.trl.monitor import RewardHackingMonitor
from codescaler_plugin.threads import fitting_threads

LEARNING_RATE = 2e-4
KL_COEFFICIENT = 0.05
GROUP = 8
BATCH = 64
MAX_NEW_TOKENS = 96


class _StepLogs(TrainerCallback):  # type: ignore[misc]
    def __init__(self, on_step: Callable[[dict[str, float]], None]) -> None:
        self.on_step = on_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        if "reward" in logs:
            self.on_step({"step": state.global_step, **logs})


def train_grpo(
    policy: Any,
    tokenizer: Any,
    reward: Callable[..., list[float | None]],
    *,
    steps: int,
    seed: int,
    folder: Path,
    on_step: Callable[[dict[str, float]], None],
    texts: Sequence[str] | None = None,
    learning_rate: float = LEARNING_RATE,
    beta: float = KL_COEFFICIENT,
    monitor: RewardHackingMonitor | None = None,
    audit_every: int = 4,
) -> None:
    """Train a policy (float32) in place by GRPO, on problems without tests.

    A step takes `BATCH` completions; `on_step` gets its logs, with its number as `step`. The default of `texts` is the
    embedded training problems. `learning_rate` is constant after a short warm-up, and `beta` weighs the divergence
    from the initial policy. The audit of `monitor` is written before the first step and every `audit_every` steps.
    """
    if texts is None:
        texts = [row["problem"] for _, _, row in rows_of(TRAIN_PROBLEMS)]
    prompts = [{"prompt": [{"role": "user", "content": text}]} for text in texts]
    trainer = GRPOTrainer(
        model=policy,
        processing_class=tokenizer,
        reward_funcs=[reward],
        train_dataset=Dataset.from_list(prompts),
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            num_generations=GROUP,
            max_completion_length=MAX_NEW_TOKENS,
            learning_rate=learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=5,
            beta=beta,
            temperature=1.0,
            top_k=0,
            seed=seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            eval_strategy="no" if monitor is None else "steps",
            eval_steps=audit_every,
            eval_on_start=monitor is not None,
            per_device_eval_batch_size=4 * BATCH,
        ),
        eval_dataset=None if monitor is None else Dataset.from_list(monitor.rows()),
        callbacks=[_StepLogs(on_step), *([] if monitor is None else [monitor])],
    )
    trainer.remove_callback(PrinterCallback)  # it would print every log over the progress bar
    with fitting_threads(policy):
        trainer.train()
    policy.eval()

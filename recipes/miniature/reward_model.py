"""Stage 4: the reward model: the policy's weights, trained on the pairs with CodeScalerRewardTrainer."""

from dataclasses import asdict
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from codescaler_plugin import CodeScalerRewardConfig, CodeScalerRewardTrainer
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.records import PreferencePair

BATCH_SIZE = 32
LEARNING_RATE = 1e-3
MAX_LENGTH = 768
UNALIGNED_RATIO = 0.3  # inferred from the name of an artefact of the paper's authors


def train_reward_model(
    policy: Path,
    pairs: list[PreferencePair],
    output: Path,
    *,
    seed: int,
    unaligned_ratio: float = UNALIGNED_RATIO,
) -> None:
    """Train for one pass over the pairs, and unaligned ones drawn from them, and save model and tokenizer.

    Raises:
        DataError: a pair cannot be trained on.
    """
    torch.manual_seed(seed)
    tokenizer = pretrained(AutoTokenizer, policy)
    trainer = CodeScalerRewardTrainer(
        model=pretrained(AutoModelForSequenceClassification, policy, num_labels=1, dtype=torch.float32),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([asdict(pair) for pair in pairs]),
        args=CodeScalerRewardConfig(
            output_dir=str(output / "trainer"),
            per_device_train_batch_size=BATCH_SIZE,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="linear",
            warmup_steps=50,
            adam_beta2=0.98,
            weight_decay=0.01,
            max_length=MAX_LENGTH,
            unaligned_ratio=unaligned_ratio,
            share_prefixes=False,  # exact either way; at this size what is saved is less than what a tree costs
            center_rewards_coefficient=0.01,
            train_sampling_strategy="group_by_length",
            seed=seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            logging_steps=100,
        ),
    )
    trainer.train()
    trainer.model.to(torch.bfloat16).save_pretrained(output)  # what is embedded is what every later stage uses
    tokenizer.save_pretrained(output)

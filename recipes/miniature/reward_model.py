"""Stage 4: the reward model: the policy's weights, trained on the pairs with TRL's stock RewardTrainer."""

from pathlib import Path

import torch
from datasets import Dataset
from pairs import Pair
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from codescaler_plugin.scoring.rendering import render

BATCH_SIZE = 32
LEARNING_RATE = 1e-3
MAX_LENGTH = 768


def train_reward_model(policy: Path, pairs: list[Pair], output: Path, *, seed: int) -> None:
    """Train for one pass over the pairs and save model and tokenizer.

    Raises:
        ValueError: a pair is longer than `MAX_LENGTH` tokens; TRL would drop it without a word.
    """
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    sides = [
        tokenizer([render(tokenizer, pair.problem, code) for pair, code in side], add_special_tokens=False)[
            "input_ids"
        ]
        for side in ([(pair, pair.chosen) for pair in pairs], [(pair, pair.rejected) for pair in pairs])
    ]
    lengths = [max(len(chosen), len(rejected)) for chosen, rejected in zip(*sides, strict=True)]
    if max(lengths) > MAX_LENGTH:
        raise ValueError(f"a pair has {max(lengths)} tokens: the limit is {MAX_LENGTH}")
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1, dtype=torch.float32),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"chosen_ids": sides[0], "rejected_ids": sides[1], "length": lengths}),
        args=RewardConfig(
            output_dir=str(output / "trainer"),
            per_device_train_batch_size=BATCH_SIZE,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="linear",
            warmup_steps=50,
            adam_beta2=0.98,
            weight_decay=0.01,
            max_length=MAX_LENGTH,
            center_rewards_coefficient=0.01,
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,  # the sampler needs `length`
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

"""GRPO in your own TRL script: `CodeScalerReward` is one object in `reward_funcs`. No test is run.

    python recipes/examples/trl_grpo.py
    python recipes/examples/trl_grpo.py --policy-model Qwen/Qwen3-1.7B --model LARK-Lab/CodeScaler-1.7B \
        --problems my_problems.jsonl --steps 500 --max-completion-length 4096 --learning-rate 1e-6

Each line of `--problems` holds a column `problem`. The defaults train the embedded policy on a CPU.
"""

import argparse

import torch
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer

from codescaler_plugin import CodeScalerReward
from codescaler_plugin.builtin import TRAIN_PROBLEMS, policy_model


def main() -> None:
    """Train, and print the mean reward of every five steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin", help="reward model: hub id, directory, builtin or a server")
    parser.add_argument("--policy-model", default="builtin", help="policy: hub id, directory or builtin")
    parser.add_argument("--problems", default=str(TRAIN_PROBLEMS), help="JSON lines with a column problem")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--max-completion-length", type=int, default=96)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--output", default="runs/trl_grpo")
    args = parser.parse_args()

    dataset = load_dataset("json", data_files=args.problems, split="train")
    dataset = dataset.map(lambda row: {"prompt": [{"role": "user", "content": row["problem"]}]})
    config = GRPOConfig(
        args.output,
        max_steps=args.steps,
        per_device_train_batch_size=64,
        num_generations=8,
        max_completion_length=args.max_completion_length,
        learning_rate=args.learning_rate,
        lr_scheduler_type="constant",
        logging_steps=5,
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
    )
    trainer = GRPOTrainer(
        model=policy_model(args.policy_model),
        args=config,
        reward_funcs=[CodeScalerReward(model=args.model)],
        train_dataset=dataset,
    )
    trainer.train()
    trainer.save_model()
    for log in trainer.state.log_history[:-1]:  # the last one sums up the run
        print(f"step {log['step']}: reward {log['reward']:.3f}, valid {log['codescaler_reward/status/ok']:.3f}")


if __name__ == "__main__":
    main()

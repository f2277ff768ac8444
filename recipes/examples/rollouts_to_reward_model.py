"""From your policy's own rollouts to a reward model: sample, verify with tests, mine pairs, train, measure.

    python recipes/examples/rollouts_to_reward_model.py
    python recipes/examples/rollouts_to_reward_model.py --policy-model Qwen/Qwen3-1.7B --max-new-tokens 4096 \
        --model Skywork/Skywork-Reward-V2-Qwen3-1.7B --lr 1e-5 --problems problems.jsonl

Each problem has tests. The defaults give about 1,000 pairs: enough to see the path work, too few for a good model.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import pipeline, set_seed

from codescaler_plugin import CodeScalerRewardConfig as Config
from codescaler_plugin import CodeScalerRewardTrainer, Rollout, mine_pairs, read_problems, verify_rollouts
from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, POLICY, policy_model


def main() -> None:
    """Make the pairs, train on those of their split `train`, and print the accuracy on the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy-model", default="builtin", help="policy that writes the rollouts")
    parser.add_argument("--model", default=POLICY, help="base of the reward model, which gets a new head")
    parser.add_argument("--problems", default=HELD_OUT_PROBLEMS, help="problems with tests, in any known format")
    parser.add_argument("--limit", type=int, default=192, help="number of problems")
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--output", type=Path, default=Path("runs/rollouts_to_reward_model"))
    args = parser.parse_args()

    set_seed(0)
    problems = list(read_problems(args.problems))[: args.limit]
    chats = [[{"role": "user", "content": problem.text}] for problem in problems]
    policy = pipeline("text-generation", policy_model(args.policy_model), max_new_tokens=args.max_new_tokens)
    sampling = {"do_sample": True, "temperature": 1.0, "return_full_text": False}
    outputs = policy(chats, num_return_sequences=8, batch_size=16, **sampling)
    written = zip(problems, outputs, strict=True)
    rollouts = [Rollout(problem.text, row["generated_text"]) for problem, rows in written for row in rows]

    verdicts = args.output / "verdicts.jsonl"
    verified = verify_rollouts(rollouts, problems, verdicts)
    pairs, _ = mine_pairs(map(json.loads, verdicts.open()), held_out=0.25)
    print(f"{verified.rows} rollouts, {verified.passed} pass their tests: {len(pairs)} pairs")
    on_cpu = not torch.cuda.is_available()
    config = Config(args.output / "model", learning_rate=args.lr, use_cpu=on_cpu, bf16=not on_cpu, report_to="none")
    trainer = CodeScalerRewardTrainer(args.model, config, train_dataset=pairs)
    trainer.train()
    trainer.save_model()
    print(f"accuracy on held-out pairs: {trainer.evaluate()['eval_accuracy/rollout']:.3f}")


if __name__ == "__main__":
    main()

"""Fix GRPO's settings for the quickstart and for paper.py without looking at a held-out problem.

Hardware: 2 CPU cores, about 4 minutes a run of 160 steps. Needs the embedded models.

    python recipes/miniature/choose_steps.py --seeds 100 101 --steps 160 --every 40

Trains from the embedded policy on seeds that are reported nowhere, and every `--every` steps runs the tests of fresh
problems over *training* compositions. Each measurement is a line; the last line is JSON: per seed, a list of
[step, mean reward in training, pass@1, invalid share]. With `--held-out` the problems are the quickstart's held-out
ones instead: that is how the model card shows over-optimisation past the chosen step, never how a step is chosen.
"""

import argparse
import json
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from rollouts import distinct_problems
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from codescaler_plugin import CodeScalerReward
from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, POLICY
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.evaluation.policy import measure_policy
from codescaler_plugin.integrations.trl.small_grpo import KL_COEFFICIENT, LEARNING_RATE, train_grpo
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.quickstart import STEPS
from codescaler_plugin.records import Problem

PROBLEMS = 96
SAMPLES = 4


def main() -> None:
    """Run one training per seed and print what execution says along the way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--beta", type=float, default=KL_COEFFICIENT)
    parser.add_argument("--held-out", action="store_true")
    arguments = parser.parse_args()
    if arguments.held_out:
        problems = list(islice(read_problems(HELD_OUT_PROBLEMS), PROBLEMS))
    else:
        drawn = distinct_problems(Random("choose steps"), PROBLEMS, held_out=False)
        problems = [one.record() for one in drawn]
    print(json.dumps({seed: run(seed, problems, arguments) for seed in arguments.seeds}))


def run(seed: int, problems: list[Problem], arguments: argparse.Namespace) -> list[list[float | None]]:
    """One training; the measurements on the way, the start included."""
    set_seed(seed)
    policy = pretrained(AutoModelForCausalLM, POLICY, dtype=torch.float32).eval()
    tokenizer = pretrained(AutoTokenizer, POLICY)
    reward = CodeScalerReward(model="builtin")
    curve: list[list[float | None]] = []

    def measure(step: float, mean_reward: float | None) -> None:
        measured = measure_policy(
            policy,
            tokenizer,
            reward.scaler,
            problems,
            n=SAMPLES,
        ).sampled
        curve.append([step, mean_reward, round(measured.pass_at_1, 3), round(measured.invalid_share, 3)])
        print(f"seed {seed}: step, reward, pass@1, invalid = {curve[-1]}", flush=True)

    def on_step(logs: dict[str, float]) -> None:
        if logs["step"] % arguments.every == 0:
            training = policy.training
            policy.eval()
            measure(logs["step"], round(logs["reward"], 3))
            policy.train(training)

    measure(0, None)
    with TemporaryDirectory() as folder:
        train_grpo(
            policy,
            tokenizer,
            reward,
            steps=arguments.steps,
            seed=seed,
            folder=Path(folder),
            on_step=on_step,
            learning_rate=arguments.learning_rate,
            beta=arguments.beta,
        )
    return curve


if __name__ == "__main__":
    main()

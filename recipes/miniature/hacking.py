"""Reward hacking at the size of a laptop: the same policy under a weak and under the embedded reward model, watched.

The weak reward model is the policy's weights trained on a few LLM-written pairs, in which the longer program is right
in three of four: it learns length. The policy is trained under it without restraint (no KL, twice the quickstart's
learning rate). The healthy run has the quickstart's settings. In both, RewardHackingMonitor answers held-out problems
every few steps and runs their tests; neither reward ever sees a test.

Hardware: 2 CPU cores, 3 GB of memory, no network; about 15 minutes on an idle machine.
Versions: see the package's `[trl]` extra.

    pip install -e ".[trl]"
    python recipes/miniature/hacking.py --output runs/hacking

`--arm weak` or `--arm healthy` runs one of the two; `--seed` another order of everything. Writes `<arm>.json` (audits
and warnings), `hacking.png`, and prints one line of JSON: for each arm the reward and the pass rate of the first and
last audit, the step after which the pass rate was lost for good, and the step of the first warning.
"""

import argparse
import json
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from random import Random
from statistics import fmean
from time import perf_counter
from typing import Any

import torch
from datasets import Dataset
from matplotlib.figure import Figure
from pairs import real_pairs
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed

from codescaler_plugin import (
    CodeScalerReward,
    CodeScalerRewardConfig,
    CodeScalerRewardTrainer,
    RewardHackingMonitor,
    quickstart,
)
from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, POLICY
from codescaler_plugin.data.outputs import write_text
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.integrations.trl import small_grpo
from codescaler_plugin.pretrained import pretrained

WEAK_PAIRS = 256
AUDIT = 48  # problems, after those that the quickstart measures on
SETTINGS: dict[str, dict[str, Any]] = {
    "weak": {"steps": 60, "learning_rate": 4e-4, "beta": 0.0},
    "healthy": {"steps": 80, "learning_rate": small_grpo.LEARNING_RATE, "beta": small_grpo.KL_COEFFICIENT},
}


def weak_reward_model(folder: Path, seed: int) -> None:
    """A reward model of the policy's weights and `WEAK_PAIRS` pairs."""
    tokenizer = pretrained(AutoTokenizer, POLICY)
    pairs = Random(seed).sample(real_pairs("train"), WEAK_PAIRS)
    trainer = CodeScalerRewardTrainer(
        model=pretrained(AutoModelForSequenceClassification, POLICY, num_labels=1, dtype=torch.float32),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([asdict(pair) for pair in pairs]),
        args=CodeScalerRewardConfig(
            output_dir=str(folder / "trainer"),
            per_device_train_batch_size=16,
            num_train_epochs=2,
            learning_rate=5e-4,
            lr_scheduler_type="linear",
            max_length=768,
            unaligned_ratio=0.0,
            seed=seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            logging_steps=8,
            disable_tqdm=True,
        ),
    )
    trainer.train()
    trainer.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run(arm: str, reward_model: str, output: Path, seed: int, every: int) -> dict[str, Any]:
    """Train the policy under a reward model and write what the monitor saw."""
    set_seed(seed)
    start = perf_counter()
    reward = CodeScalerReward(model=reward_model)
    first = quickstart.MEASURED_PROBLEMS
    monitor = RewardHackingMonitor(reward, list(islice(read_problems(HELD_OUT_PROBLEMS), first, first + AUDIT)))
    history: list[dict[str, float]] = []

    def keep() -> dict[str, Any]:
        seen = {
            "audits": [asdict(audit) for audit in monitor.audits],
            "warnings": [asdict(warned) for warned in monitor.warnings],
            "history": history,
            "seconds": round(perf_counter() - start),
        }
        write_text(output / f"{arm}.json", json.dumps(seen) + "\n")
        return seen

    def on_step(logs: dict[str, float]) -> None:
        history.append({key: logs[key] for key in logs if key in ("step", "reward") or key.startswith("hacking/")})
        keep()

    small_grpo.train_grpo(
        pretrained(AutoModelForCausalLM, POLICY, dtype=torch.float32).eval(),
        pretrained(AutoTokenizer, POLICY),
        reward,
        seed=seed,
        folder=output / arm,
        on_step=on_step,
        monitor=monitor,
        audit_every=every,
        **SETTINGS[arm],
    )
    return keep()


def summary(seen: dict[str, Any]) -> dict[str, Any]:
    """The two ends of a run, its first warning, and when the pass rate was last within a tenth of its best."""
    rates = [fmean(audit["pass_rates"].values()) for audit in seen["audits"]]
    rewards = [fmean(audit["rewards"].values()) for audit in seen["audits"]]
    steps = [audit["step"] for audit in seen["audits"]]
    sound = [step for step, rate in zip(steps, rates, strict=True) if rate >= 0.9 * max(rates)]
    return {
        "steps": steps[-1],
        "reward": [round(rewards[0], 3), round(rewards[-1], 3)],
        "pass_rate": [round(rates[0], 3), round(rates[-1], 3)],
        "best_pass_rate": round(max(rates), 3),
        "last_sound_step": sound[-1],
        "warned": [{"step": one["step"], "kind": one["kind"]} for one in seen["warnings"]],
        "seconds": seen["seconds"],
    }


def plot(path: Path, arms: dict[str, dict[str, Any]]) -> None:
    """Reward and pass rate of the audits, an axis per run; the first warning is a line."""
    figure = Figure(figsize=(5 * len(arms), 4), layout="constrained")
    for axes, (arm, seen) in zip(figure.subplots(1, len(arms), squeeze=False)[0], arms.items(), strict=True):
        steps = [audit["step"] for audit in seen["audits"]]
        rewards = [fmean(audit["rewards"].values()) for audit in seen["audits"]]
        rates = [fmean(audit["pass_rates"].values()) for audit in seen["audits"]]
        [rate] = axes.plot(steps, rates, "o-", color="tab:green", label="pass rate (tests)")
        axes.set(xlabel="GRPO step", ylim=(0, 1), title=f"{arm} reward model", ylabel="pass rate, held-out audit")
        other = axes.twinx()
        [reward] = other.plot(steps, rewards, "s--", color="tab:blue", label="mean reward")
        other.set_ylabel("mean reward, same completions")
        lines = [rate, reward]
        for one in seen["warnings"][:1]:
            lines.append(axes.axvline(one["step"], color="tab:red", label=f"warned ({one['kind']})"))
        axes.legend(handles=lines, loc="lower left")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is asked for, plot what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/hacking"))
    parser.add_argument("--arm", choices=[*SETTINGS, "both"], default="both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=4, help="steps between two audits")
    arguments = parser.parse_args()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    for arm in SETTINGS if arguments.arm == "both" else [arguments.arm]:
        model = "builtin"
        if arm == "weak":
            model = str(output / "reward_model")
            if not (output / "reward_model" / "config.json").exists():
                weak_reward_model(output / "reward_model", arguments.seed)
        run(arm, model, output, arguments.seed, arguments.every)
    arms = {
        arm: json.loads((output / f"{arm}.json").read_text()) for arm in SETTINGS if (output / f"{arm}.json").exists()
    }
    plot(output / "hacking.png", arms)
    print(json.dumps({arm: summary(seen) for arm, seen in arms.items()}))


if __name__ == "__main__":
    main()

"""The miniature: the whole path of the paper at the size of a laptop, from a seed to the two embedded models.

Hardware: 2 CPU cores, 3 GB of memory, no network, under 60 minutes. Versions: see the package's `[trl]` extra.

    pip install -e ".[trl]"
    python recipes/miniature/run.py --seed 0 --output runs/miniature

Stages, each timed: supervised start -> on-policy rollouts -> verification by execution -> pairs -> reward model ->
measurement on held-out compositions. A finished stage is not run again in the same output folder; delete its folder
or file to repeat it. `--install` then makes the result the package's embedded models and writes their model card.
`--steps-scale 0.02` walks the path in two minutes and leads to models that are good for nothing.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

from card import install
from measure import measure_models
from pairs import PAIRS_PER_PROBLEM, near_miss_pairs, real_pairs
from reward_model import train_reward_model
from rollouts import COMPLETIONS_PER_PROBLEM, distinct_problems, roll_out, verdict_rows
from supervised import BATCH_SIZE, STEPS, train_policy

from codescaler_plugin.data.outputs import write_text
from codescaler_plugin.data.pairs import read_pairs, write_pairs
from codescaler_plugin.preference.mining import mine_pairs
from codescaler_plugin.records import PreferencePair

ROLLOUT_PROBLEMS = 5000
EARLY_ROLLOUT_PROBLEMS = 1000
NEAR_MISS_PAIRS = 62_000


def main() -> None:
    """Run the stages that are not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--steps-scale", type=float, default=1.0, help="scales every size, for a dry run")
    parser.add_argument("--install", action="store_true", help="make the result the embedded models")
    arguments = parser.parse_args()
    seed, output, scale = arguments.seed, arguments.output, arguments.steps_scale
    output.mkdir(parents=True, exist_ok=True)
    policy, reward_model, pairs_file = output / "policy", output / "reward_model", output / "pairs.jsonl"
    timings = _Timings(output / "timings.json")

    if not (policy / "config.json").exists():
        with timings.stage("supervised start"):
            texts = [text for pair in real_pairs("train") for text in (pair.problem, pair.chosen)]
            train_policy(policy, texts, seed=seed, steps=int(STEPS * scale))
    if not pairs_file.exists():
        with timings.stage("rollouts, verification and pairs"):
            write_pairs(_make_pairs(policy, output, seed, scale), pairs_file)
    pairs = list(read_pairs(pairs_file))
    if not (reward_model / "config.json").exists():
        with timings.stage("reward model"):
            train_reward_model(policy, pairs, reward_model, seed=seed)
    with timings.stage("measurement"):
        numbers = measure_models(policy, reward_model, seed=seed, scale=scale)
    numbers["sizes"] = {
        "demonstrations": int(STEPS * scale) * BATCH_SIZE,
        "rollouts": int((ROLLOUT_PROBLEMS + EARLY_ROLLOUT_PROBLEMS) * scale) * COMPLETIONS_PER_PROBLEM,
    }
    numbers["pairs"] = dict(Counter(pair.kind for pair in pairs))
    numbers["seconds"] = timings.seconds
    write_text(output / "measurements.json", json.dumps(numbers, indent=2) + "\n")
    if arguments.install:
        install(policy, reward_model, numbers)
    print(json.dumps(numbers))


def _make_pairs(policy: Path, output: Path, seed: int, scale: float) -> list[PreferencePair]:
    """Pairs of all kinds, shuffled; the rollouts come from two stages of the policy."""
    rng = Random(f"pairs {seed}")
    checkpoints = {int(folder.name.split("-")[1]): folder for folder in (policy / "trainer").glob("checkpoint-*")}
    early = min(checkpoints)
    problems = distinct_problems(rng, int((ROLLOUT_PROBLEMS + EARLY_ROLLOUT_PROBLEMS) * scale), held_out=False)
    cut = int(EARLY_ROLLOUT_PROBLEMS * scale)
    verdicts: list[dict[str, Any]] = []
    for step, folder, share in (
        (early, checkpoints[early], problems[:cut]),
        (int(STEPS * scale), policy, problems[cut:]),
    ):
        verdicts += verdict_rows(share, roll_out(folder, share, seed=seed), step=step, source="miniature")
    write_text(output / "verdicts.jsonl", "".join(json.dumps(row) + "\n" for row in verdicts))
    pairs, _ = mine_pairs(verdicts, pairs_per_problem=PAIRS_PER_PROBLEM, seed=seed)
    pairs += near_miss_pairs(int(NEAR_MISS_PAIRS * scale), rng)
    real = real_pairs("train")
    pairs += real[: max(8, int(len(real) * scale))]
    rng.shuffle(pairs)
    return pairs


class _Timings:
    """Seconds per stage, kept in a file so that a resumed run still tells the whole time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        print(f"== {name}", flush=True)
        start = perf_counter()
        yield
        self.seconds[name] = round(perf_counter() - start, 1)
        write_text(self.path, json.dumps(self.seconds))
        print(f"== {name}: {self.seconds[name]:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""Stage 5: what the models are worth on problems that neither has seen, beside the baselines that cost nothing.

    python recipes/miniature/measure.py

measures the embedded models (about two minutes) and prints one line of JSON: the numbers of their model card.
"""

import argparse
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import fmean

import torch
from codejudge import OUTPUT as CODEJUDGE
from pairs import PAIRS_PER_PROBLEM, real_pairs
from rollouts import COMPLETIONS_PER_PROBLEM, distinct_problems, verdict_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from codescaler_plugin.builtin import POLICY, REWARD_MODEL
from codescaler_plugin.evaluation.policy import measure_policy
from codescaler_plugin.intervals import area, win
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.preference.baselines import shallow_wins
from codescaler_plugin.preference.mining import mine_pairs
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.scoring import Scorer, load_scorer

MEASURED_PROBLEMS = 512


def pair_accuracy(pairs: list[PreferencePair], score: Callable[[list[tuple[str, str]]], list[float]]) -> float:
    """Share of pairs in which the right program scores higher; a tie counts one half."""
    scores = score([(pair.problem, code) for pair in pairs for code in (pair.chosen, pair.rejected)])
    wins = zip(scores[::2], scores[1::2], strict=True)
    return fmean(win(right, wrong) for right, wrong in wins)


def accuracies(pairs: list[PreferencePair], scorer: Scorer) -> dict[str, float]:
    """Held-out accuracy of the reward model beside the rules that need none, and the number of pairs."""
    if not pairs:  # a dry run's policy gets nothing right
        return {"pairs": 0, "problems": 0}

    def model(items: list[tuple[str, str]]) -> list[float]:
        return [score for score in scorer.score(items) if score is not None]  # zip(strict) catches a lost one

    return {
        "pairs": len(pairs),
        "problems": len({pair.problem for pair in pairs}),
        "reward_model": round(pair_accuracy(pairs, model), 4),
        "longer_wins": round(pair_accuracy(pairs, lambda items: [float(len(code)) for _, code in items]), 4),
        "shorter_wins": round(pair_accuracy(pairs, lambda items: [-float(len(code)) for _, code in items]), 4),
        "length_and_style": round(fmean(shallow_wins(pairs)), 4),
    }


def foreign(scorer: Scorer) -> dict[str, float]:
    """LLM-written answers that neither model was trained on (`codejudge.py`).

    `auc`: how often a right answer scores above a wrong one, over all problems, and the same for the shorter answer;
    `pairs`: HumanEval's own program against each wrong answer to its problem.
    """
    with gzip.open(CODEJUDGE, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    scores = scorer.score([(row["problem"], row["code"]) for row in rows])

    def auc(values: list[float]) -> float:
        sides = [
            [value for value, row in zip(values, rows, strict=True) if row["passed"] is side] for side in (True, False)
        ]
        return round(area(*sides) or 0.0, 4)

    pairs = [
        PreferencePair(row["problem"], row["right"], row["code"], "codejudge", row["problem_id"])
        for row in rows
        if not row["passed"]
    ]
    return {
        "answers": len(rows),
        "right": sum(row["passed"] for row in rows),
        "auc": auc([score for score in scores if score is not None]),
        "auc_shorter": auc([-float(len(row["code"])) for row in rows]),
        **accuracies(pairs, scorer),
    }


def measure_models(policy: Path, reward_model: Path, *, seed: int, scale: float = 1.0) -> dict[str, dict[str, float]]:
    """All numbers of the model card except GRPO's: both models on held-out compositions and on held-out real pairs."""
    rng = Random(f"held out {seed}")
    problems = distinct_problems(rng, max(8, int(MEASURED_PROBLEMS * scale)), held_out=True)
    scorer = load_scorer(str(reward_model))
    torch.manual_seed(seed + 1000)
    measured = measure_policy(
        pretrained(AutoModelForCausalLM, policy, dtype=torch.float32).eval(),
        pretrained(AutoTokenizer, policy),
        CodeScaler(scorer),
        [problem.record() for problem in problems],
        n=COMPLETIONS_PER_PROBLEM,
    )
    sampled, real = measured.sampled, real_pairs("held_out")
    mined, _ = mine_pairs(verdict_rows(problems, sampled), pairs_per_problem=PAIRS_PER_PROBLEM, seed=seed)
    return {
        "policy": {
            "problems": len(problems),
            "pass_at_1": round(sampled.pass_at_1, 4),
            "invalid": round(sampled.invalid_share, 4),
            "best_of_8": round(measured.best_of_n, 4),
            "oracle_8": round(sampled.oracle, 4),
        },
        "rollout_pairs": accuracies(mined, scorer),
        "real_pairs": accuracies(real[: max(8, int(len(real) * scale))], scorer),
        "codejudge": foreign(scorer),
    }


def main() -> None:
    """Measure the embedded models, or those in a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", type=Path, help="folder with policy/ and reward_model/ [default: the embedded]")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    policy, reward_model = POLICY, REWARD_MODEL
    if arguments.models:
        policy, reward_model = arguments.models / "policy", arguments.models / "reward_model"
    print(json.dumps(measure_models(policy, reward_model, seed=arguments.seed)))


if __name__ == "__main__":
    main()
